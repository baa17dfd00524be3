// The sigma-delta neurons of a layer, block by block on all threads.

#include "neurons.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

namespace {

// Call f(sequence, first neuron, neurons, block number) for every block, on all threads.
template <typename F>
void for_each_block(const Neurons& layer, F f) {
    const int64_t blocks = (layer.neurons + kBlock - 1) / kBlock;
    #pragma omp parallel for num_threads(layer.threads) schedule(static)
    for (int64_t u = 0; u < layer.sequences * blocks; u++) {
        const int64_t first = u % blocks * kBlock;
        f(u / blocks, first, std::min(kBlock, layer.neurons - first), u);
    }
}

int64_t block_count(const Neurons& layer) { return layer.sequences * ((layer.neurons + kBlock - 1) / kBlock); }

// These sequences' part of the mean over the whole batch, over its sequences, frames and a channel's neurons, of values
// that are sums over the frames, [sequence][neuron].
template <typename T, typename Mean>
void channel_means(const Neurons& layer, const std::vector<T>& sums, Mean* means) {
    std::vector<double> totals(layer.channels, 0.0);
    for (size_t p = 0; p < sums.size(); p += layer.channels)
        for (int64_t c = 0; c < layer.channels; c++) totals[c] += sums[p + c];
    const double count = static_cast<double>(layer.batch * layer.frames * (layer.neurons / layer.channels));
    for (int64_t c = 0; c < layer.channels; c++) means[c] = static_cast<Mean>(totals[c] / count);
}

std::vector<float> per_neuron(const Neurons& layer, const float* per_channel) {
    std::vector<float> values(layer.neurons, 0.0f);
    if (per_channel)
        for (int64_t p = 0; p < layer.neurons; p++) values[p] = per_channel[p % layer.channels];
    return values;
}

const std::vector<float> kOnes(kBlock, 1.0f);

}  // namespace

extern "C" {

// Channel means of the summed currents: what the batch norm takes off. Exact up to the final rounding.
void dendrite_means(const Neurons* layer, const float* current, double* means) {
    std::vector<double> sums(layer->sequences * layer->neurons);
    for_each_block(*layer, [&](int64_t n, int64_t first, int64_t count, int64_t) {
        double sum[kBlock] = {};
        for (int64_t t = 0; t < layer->frames; t++) {
            const float* z = current + (n * layer->frames + t) * layer->neurons + first;
            const double frames_it_counts_in = static_cast<double>(layer->frames - t);
            #pragma omp simd
            for (int64_t i = 0; i < count; i++) sum[i] += frames_it_counts_in * z[i];
        }
        std::memcpy(&sums[n * layer->neurons + first], sum, count * sizeof(double));
    });
    channel_means(*layer, sums, means);
}

// Messages of a layer that starts from state `before`, and the state `after` them.
// sums: the sum of the messages' magnitudes, and how many are not zero after the first frame.
void encode(const Neurons* layer, const State* before, const float* current, const float* mean, const float* gain,
            float* messages, const State* after, double* sums) {
    const std::vector<float> bias = per_neuron(*layer, mean);
    std::vector<Sums> parts(block_count(*layer));
    for_each_block(*layer, [&](int64_t n, int64_t first, int64_t count, int64_t u) {
        const int64_t offset = n * layer->frames * layer->neurons + first;
        const float* block_gain = gain ? gain + n * layer->neurons + first : kOnes.data();
        Block block(*before, n * layer->neurons + first, count);
        parts[u] = layer->has_dendrite
            ? encode_block<true>(*layer, block, current + offset, &bias[first], block_gain, count, messages + offset)
            : encode_block<false>(*layer, block, current + offset, &bias[first], block_gain, count, messages + offset);
        block.save(*after, n * layer->neurons + first, count);
    });
    sums[0] = sums[1] = 0;
    for (const Sums& part : parts) sums[0] += part.magnitude, sums[1] += part.events;
}

// Gradient of the threshold (returned), of the activations, and of each channel's mean, for every frame that it counts in.
// slope: gradient of the messages' magnitudes. mean_passes: per channel, how much of the mean's gradient its
// quantisation lets through (0 or 1); null: mean is constant.
double activation_gradients(const Neurons* layer, const State* before, const float* current, const float* mean,
                            const float* mean_passes, const float* gain, const float* message_gradient, float slope,
                            float* gradient, float* shares) {
    const std::vector<float> bias = per_neuron(*layer, mean);
    std::vector<double> parts(block_count(*layer));
    std::vector<float> sums(layer->sequences * layer->neurons);
    for_each_block(*layer, [&](int64_t n, int64_t first, int64_t count, int64_t u) {
        const int64_t offset = n * layer->frames * layer->neurons + first;
        const float* block_gain = gain ? gain + n * layer->neurons + first : kOnes.data();
        const int64_t neuron = n * layer->neurons + first;
        Block block(*before, neuron, count);
        parts[u] = block_activation_gradients(*layer, block, current + offset, &bias[first], block_gain,
                                              message_gradient + offset, slope, count, gradient + offset, &sums[neuron]);
    });
    std::fill_n(shares, layer->channels, 0.0f);
    if (mean_passes) {
        channel_means(*layer, sums, shares);
        for (int64_t c = 0; c < layer->channels; c++) shares[c] *= mean_passes[c];
    }
    return std::accumulate(parts.begin(), parts.end(), 0.0);
}

// In place, from the gradient of the activations that of the current.
void current_gradients(const Neurons* layer, const float* shares, float* gradient) {
    const std::vector<float> share = per_neuron(*layer, shares);
    for_each_block(*layer, [&](int64_t n, int64_t first, int64_t count, int64_t) {
        block_current_gradients(*layer, &share[first], count, gradient + n * layer->frames * layer->neurons + first);
    });
}

// Of a layer without a dendrite: how each event depends on the threshold; returns how the sum of magnitudes does.
double sensitivities(const Neurons* layer, const State* before, const float* current, float* values) {
    std::vector<double> parts(block_count(*layer));
    for_each_block(*layer, [&](int64_t n, int64_t first, int64_t count, int64_t u) {
        const int64_t offset = n * layer->frames * layer->neurons + first;
        Block block(*before, n * layer->neurons + first, count);
        parts[u] = block_sensitivities(*layer, block, current + offset, count, values + offset);
    });
    return std::accumulate(parts.begin(), parts.end(), 0.0);
}

}  // extern "C"
