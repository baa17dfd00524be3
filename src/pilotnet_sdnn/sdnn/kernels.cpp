// The sigma-delta neurons of one layer, over whole sequences, each way in one pass.
//
// Tensors are float32 [sequence][frame][neuron], a neuron's channel running fastest. A block of
// neurons is taken through all its frames while its state stays in registers and L1. The backward
// pass computes the forward pass again instead of storing it.
//
// Forward, arithmetic is lava-dl's, operation by operation, so that results are the same bits. Products are
// added only where they are exact (of events and weights: 24 bits hold them), so fusing the two is allowed.
// Sums over neurons are of one partial sum per block, added in one order: the number of threads does not matter.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int64_t kLanes = 16;
#else
constexpr int64_t kLanes = 8;
#endif
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

constexpr int64_t kBlock = 256;  // neurons: with fewer the memory waits, with more the state leaves L1

struct Layer {
    int64_t sequences, frames, neurons, channels;
    float threshold, tau_grad, scale_grad;
    float scale;           // events are floored to multiples of 1 / scale
    int32_t has_dendrite;  // sigma, norm and relu come before the delta unit: not so in the Input block
    int32_t threads;
};

// 2^x for x <= 0 to some units in the last place, in a form that compilers vectorise: Taylor's series around the
// nearest whole number, in two independent halves. For gradients only.
inline float exp2_of_negative(float x) {
    x = x > -126.0f ? x : -126.0f;
    const float whole = std::nearbyint(x);
    const float r = x - whole, r2 = r * r;
    const float high = 9.61812911e-3f + 1.33335581e-3f * r + 1.54035304e-4f * r2;
    const float low = 1.0f + 6.93147181e-1f * r + (2.40226507e-1f + 5.55041087e-2f * r) * r2;
    const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return (low + r2 * r2 * high) * power;
}

// State of a block of neurons, and its step from frame to frame.
struct Block {
    float sum[kBlock] = {}, activation[kBlock] = {}, residual[kBlock] = {};

    // What the delta unit of neuron i compares with the threshold: x[t] - x[t-1] + r[t-1].
    template <bool kDendrite>
    float difference(int64_t i, float current, float bias, float threshold) {
        sum[i] = kDendrite ? sum[i] + current : current;
        const float rectified = sum[i] - bias > 0.0f ? sum[i] - bias : 0.0f;
        const float x = kDendrite ? rectified : sum[i];
        const float d = x - activation[i] + residual[i];
        residual[i] = std::fabs(d) >= threshold ? 0.0f : d;
        activation[i] = x;
        return d;
    }
};

inline float event(float difference, const Layer layer, float per_scale) {
    const float sent = std::fabs(difference) >= layer.threshold ? difference : 0.0f;
    return std::floor(sent * layer.scale) * per_scale;
}

// lava-dl's surrogate for d event / d threshold.
struct Surrogate {
    float threshold, spike_scale, per_tau;

    explicit Surrogate(const Layer& layer)
        : threshold(layer.threshold),
          spike_scale(layer.scale_grad / layer.threshold),
          per_tau(1.44269504f / layer.tau_grad) {}

    float operator()(float difference) const {
        const float magnitude = std::fabs(difference), above = magnitude - threshold;
        const float spike = magnitude * spike_scale * exp2_of_negative(-std::fabs(above) * per_tau);
        const float silent = magnitude > 0.0f ? 1.0f : 0.0f;
        return -std::copysign(above > 0.0f ? spike : silent, difference);
    }
};

struct Sums {
    double magnitude = 0, events = 0;
};

template <bool kDendrite>
Sums encode_block(const Layer layer, const float* __restrict current, const float* bias, const float* gain, int64_t count,
                  float* messages) {
    Block block;
    float magnitude[kBlock] = {}, events[kBlock] = {};
    const float per_scale = 1.0f / layer.scale;
    for (int64_t t = 0; t < layer.frames; t++) {
        const float* z = current + t * layer.neurons;
        float* out = messages + t * layer.neurons;
        const float counted = t > 0 ? 1.0f : 0.0f;
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            const float d = block.difference<kDendrite>(i, z[i], bias[i], layer.threshold);
            const float message = event(d, layer, per_scale) * gain[i];
            out[i] = message;
            magnitude[i] += std::fabs(message);
            events[i] += message != 0.0f ? counted : 0.0f;
        }
    }
    return {std::accumulate(magnitude, magnitude + count, 0.0), std::accumulate(events, events + count, 0.0)};
}

// Returns the gradient of the threshold. Writes that of the activations, and its sum over time.
double block_activation_gradients(const Layer layer, const float* __restrict current, const float* bias, const float* gain,
                            const float* message_gradient, float slope, int64_t count,
                            float* __restrict activation_gradient, float* __restrict total) {
    const Surrogate surrogate(layer);
    Block block;
    float threshold_gradient[kBlock] = {}, event_gradient[kBlock] = {}, sum[kBlock] = {};
    for (int64_t t = 0; t < layer.frames; t++) {
        const float* z = current + t * layer.neurons;
        const float* incoming = message_gradient + t * layer.neurons;
        float* before = activation_gradient + (t > 0 ? t - 1 : 0) * layer.neurons;  // frame 0's are 0, then overwritten
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            const float was_active = block.activation[i] > 0.0f ? 1.0f : 0.0f;
            const float d = block.difference<true>(i, z[i], bias[i], layer.threshold);
            const float event_slope = std::fabs(d) >= layer.threshold ? slope * std::copysign(1.0f, d) : 0.0f;
            const float g = (incoming[i] + event_slope) * gain[i];
            threshold_gradient[i] += surrogate(d) * g;
            before[i] = (event_gradient[i] - g) * was_active;
            sum[i] += before[i];
            event_gradient[i] = g;
        }
    }
    float* last = activation_gradient + (layer.frames - 1) * layer.neurons;
    for (int64_t i = 0; i < count; i++) {
        last[i] = block.activation[i] > 0.0f ? event_gradient[i] : 0.0f;
        total[i] = sum[i] + last[i];
    }
    return std::accumulate(threshold_gradient, threshold_gradient + count, 0.0);
}

// In place, from the gradient of the activations that of the current: what it does to this frame and all later ones,
// less the share in it of the batch mean, which it moves once for every frame that it counts in.
void block_current_gradients(const Layer layer, const float* share, int64_t count, float* __restrict gradient) {
    float later[kBlock] = {};
    for (int64_t t = layer.frames - 1; t >= 0; t--) {
        float* g = gradient + t * layer.neurons;
        const float frames = static_cast<float>(layer.frames - t);
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            later[i] += g[i];
            g[i] = later[i] - frames * share[i];
        }
    }
}

// d event / d threshold of a block without a dendrite; returns d sum of magnitudes / d threshold.
double block_sensitivities(const Layer layer, const float* __restrict current, int64_t count,
                           float* __restrict sensitivities) {
    Block block;
    float slope[kBlock] = {};
    const Surrogate surrogate(layer);
    for (int64_t t = 0; t < layer.frames; t++) {
        const float* z = current + t * layer.neurons;
        float* out = sensitivities + t * layer.neurons;
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            const float d = block.difference<false>(i, z[i], 0.0f, layer.threshold);
            out[i] = surrogate(d);
            slope[i] += std::fabs(d) >= layer.threshold ? std::copysign(1.0f, d) * out[i] : 0.0f;
        }
    }
    return std::accumulate(slope, slope + count, 0.0);
}

// Call f(sequence, first neuron, neurons, block number) for every block, on all threads.
template <typename F>
void for_each_block(const Layer& layer, F f) {
    const int64_t blocks = (layer.neurons + kBlock - 1) / kBlock;
    #pragma omp parallel for num_threads(layer.threads) schedule(static)
    for (int64_t u = 0; u < layer.sequences * blocks; u++) {
        const int64_t first = u % blocks * kBlock;
        f(u / blocks, first, std::min(kBlock, layer.neurons - first), u);
    }
}

int64_t block_count(const Layer& layer) { return layer.sequences * ((layer.neurons + kBlock - 1) / kBlock); }

// Mean over sequences, frames and a channel's neurons of values that are sums over the frames, [sequence][neuron].
template <typename T>
void channel_means(const Layer& layer, const std::vector<T>& sums, float* means) {
    std::vector<double> totals(layer.channels, 0.0);
    for (size_t p = 0; p < sums.size(); p += layer.channels)
        for (int64_t c = 0; c < layer.channels; c++) totals[c] += sums[p + c];
    const double count = static_cast<double>(layer.sequences * layer.frames * (layer.neurons / layer.channels));
    for (int64_t c = 0; c < layer.channels; c++) means[c] = static_cast<float>(totals[c] / count);
}

std::vector<float> per_neuron(const Layer& layer, const float* per_channel) {
    std::vector<float> values(layer.neurons, 0.0f);
    if (per_channel)
        for (int64_t p = 0; p < layer.neurons; p++) values[p] = per_channel[p % layer.channels];
    return values;
}

const std::vector<float> kOnes(kBlock, 1.0f);

// A convolution of images [image][y][x][channel] by weights [y][x][input][output].
struct Convolution {
    int64_t images, height, width, inputs;
    int64_t out_height, out_width, outputs;
    int64_t kernel_height, kernel_width, stride_y, stride_x, padding_y, padding_x;
    int32_t threads;

    int64_t kernel_size() const { return kernel_height * kernel_width; }
    int64_t image_size() const { return height * width * inputs; }
    int64_t out_image_size() const { return out_height * out_width * outputs; }
};

int64_t padded(int64_t channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// Rows of channels, each padded to whole Lanes: what is past the channels is zero, or no longer of interest.
struct Wide {
    int64_t rows, channels;
    std::vector<float> values;

    Wide(int64_t rows, int64_t channels) : rows(rows), channels(channels), values(rows * padded(channels), 0.0f) {}

    Lanes* row(int64_t number) { return reinterpret_cast<Lanes*>(&values[number * padded(channels)]); }
    const Lanes* row(int64_t number) const { return const_cast<Wide*>(this)->row(number); }

    void clear() { std::fill(values.begin(), values.end(), 0.0f); }

    void read(const float* narrow) {
        for (int64_t i = 0; i < rows; i++) std::copy_n(narrow + i * channels, channels, &values[i * padded(channels)]);
    }

    void write(float* narrow) const {
        for (int64_t i = 0; i < rows; i++) std::copy_n(&values[i * padded(channels)], channels, narrow + i * channels);
    }
};

// The events of one image, row by row.
struct Events {
    std::vector<int32_t> start;  // of each pixel's events
    std::vector<int32_t> place;  // within the row, x * inputs + channel
    std::vector<float> value;
    std::vector<uint8_t> is_event;

    void gather(const Convolution& layer, const float* image) {
        const int64_t size = layer.image_size();
        start.resize(layer.height * layer.width + 1);
        place.resize(size);
        value.resize(size);
        is_event.resize(size + 8);
        uint8_t* __restrict flags = is_event.data();
        for (int64_t i = 0; i < size; i++) flags[i] = image[i] != 0.0f;
        int32_t count = 0;
        for (int64_t pixel = 0; pixel < layer.height * layer.width; pixel++) {
            start[pixel] = count;
            for (int64_t i = 0; i < layer.inputs; i += 8)  // most often all eight are silent
                for (uint64_t word = eight_flags(flags + pixel * layer.inputs + i, layer.inputs - i); word; word &= word - 1) {
                    const int64_t channel = i + __builtin_ctzll(word) / 8;
                    place[count] = static_cast<int32_t>(pixel % layer.width * layer.inputs + channel);
                    value[count++] = image[pixel * layer.inputs + channel];
                }
        }
        start.back() = count;
    }

    // The flags as the bytes of a word, the first one lowest: every processor that this runs on is little-endian.
    static uint64_t eight_flags(const uint8_t* flags, int64_t valid) {
        uint64_t word;
        std::memcpy(&word, flags, sizeof word);
        return valid < 8 ? word & ((uint64_t{1} << 8 * valid) - 1) : word;
    }
};

struct Range {
    int64_t begin, end;
};

// The events that row ky of the kernel meets at an output: those of neighbouring pixels, one after the other.
inline Range events_met(const Convolution& layer, const Events& events, int64_t y, int64_t x, int64_t ky) {
    const int64_t row = y * layer.stride_y - layer.padding_y + ky, left = x * layer.stride_x - layer.padding_x;
    if (row < 0 || row >= layer.height) return {0, 0};
    const int32_t* start = &events.start[row * layer.width];
    return {start[std::clamp<int64_t>(left, 0, layer.width)],
            start[std::clamp<int64_t>(left + layer.kernel_width, 0, layer.width)]};
}

// Offset, in a row ky of the weights, of those that an event at place 0 of the image's row meets at output x.
inline int64_t weights_met(const Convolution& layer, int64_t x, int64_t ky) {
    return (ky * layer.kernel_width - (x * layer.stride_x - layer.padding_x)) * layer.inputs;
}

// Which pixels the outputs of a convolution are: first + y * row + x * step.
struct Grid {
    int64_t first, row, step;
};

// Add what events bring to the outputs. Row by row of the kernel, so that its weights stay in L1.
template <int kVectors>
void add_convolution(const Convolution& layer, const Events& events, const Wide& weights, const Grid& grid, Wide& out) {
    const int32_t* places = events.place.data();
    const float* values = events.value.data();
    for (int64_t ky = 0; ky < layer.kernel_height; ky++)
        for (int64_t y = 0; y < layer.out_height; y++)
            for (int64_t x = 0; x < layer.out_width; x++) {
                const Range met = events_met(layer, events, y, x, ky);
                if (met.begin >= met.end) continue;
                const Lanes* base = weights.row(0) + weights_met(layer, x, ky) * kVectors;
                Lanes* target = out.row(grid.first + y * grid.row + x * grid.step);
                Lanes sum[kVectors];
                for (int v = 0; v < kVectors; v++) sum[v] = target[v];
                for (int64_t j = met.begin; j < met.end; j++) {
                    const Lanes* w = base + places[j] * kVectors;
                    for (int v = 0; v < kVectors; v++) sum[v] += values[j] * w[v];
                }
                for (int v = 0; v < kVectors; v++) target[v] = sum[v];
            }
}

template <int kVectors>
void add_weight_gradient(const Convolution& layer, const Events& events, const Wide& gradient, Wide& weight_gradient) {
    const int32_t* places = events.place.data();
    const float* values = events.value.data();
    for (int64_t ky = 0; ky < layer.kernel_height; ky++)
        for (int64_t y = 0; y < layer.out_height; y++)
            for (int64_t x = 0; x < layer.out_width; x++) {
                const Range met = events_met(layer, events, y, x, ky);
                if (met.begin >= met.end) continue;
                const Lanes* source = gradient.row(y * layer.out_width + x);
                Lanes* base = weight_gradient.row(0) + weights_met(layer, x, ky) * kVectors;
                Lanes g[kVectors];
                for (int v = 0; v < kVectors; v++) g[v] = source[v];
                for (int64_t j = met.begin; j < met.end; j++) {
                    Lanes* w = base + places[j] * kVectors;
                    for (int v = 0; v < kVectors; v++) w[v] += values[j] * g[v];
                }
            }
}

// The adjoint of a convolution, which takes gradients from its outputs to its image, is a plain convolution with stride
// 1 and a turned kernel for all pixels of the image that lie alike in the grid of strides: one part of it.
struct AdjointPart {
    Convolution layer;
    Grid grid;
    Wide weights;
};

struct Axis {
    int64_t kernel, first, pixels, padding;

    // Along one axis, for the pixels whose padded place leaves the remainder `phase` when divided by the stride.
    Axis(int64_t size, int64_t kernel_size, int64_t stride, int64_t pad, int64_t phase) {
        kernel = phase < kernel_size ? (kernel_size - phase - 1) / stride + 1 : 0;
        const int64_t outputs_before = pad > phase ? (pad - phase - 1) / stride + 1 : 0;
        first = outputs_before * stride + phase - pad;
        pixels = first < size ? (size - first - 1) / stride + 1 : 0;
        padding = kernel - 1 - outputs_before;
    }
};

// weights: [y][x][output][input].
std::vector<AdjointPart> adjoint(const Convolution& layer, const float* weights) {
    std::vector<AdjointPart> parts;
    for (int64_t py = 0; py < layer.stride_y; py++)
        for (int64_t px = 0; px < layer.stride_x; px++) {
            const Axis y(layer.height, layer.kernel_height, layer.stride_y, layer.padding_y, py);
            const Axis x(layer.width, layer.kernel_width, layer.stride_x, layer.padding_x, px);
            std::vector<float> turned_weights;
            for (int64_t ky = y.kernel - 1; ky >= 0; ky--)
                for (int64_t kx = x.kernel - 1; kx >= 0; kx--) {
                    const int64_t tap = (py + ky * layer.stride_y) * layer.kernel_width + px + kx * layer.stride_x;
                    const float* from = weights + tap * layer.outputs * layer.inputs;
                    turned_weights.insert(turned_weights.end(), from, from + layer.outputs * layer.inputs);
                }
            parts.push_back({
                {layer.images, layer.out_height, layer.out_width, layer.outputs, y.pixels, x.pixels, layer.inputs,
                 y.kernel, x.kernel, 1, 1, y.padding, x.padding, layer.threads},
                {y.first * layer.width + x.first, layer.stride_y * layer.width, layer.stride_x},
                Wide(y.kernel * x.kernel * layer.outputs, layer.inputs),
            });
            parts.back().weights.read(turned_weights.data());
        }
    return parts;
}

// The outputs of a convolution as the image of its adjoint.
Convolution turned(const Convolution& layer) {
    Convolution outputs = layer;
    outputs.height = layer.out_height, outputs.width = layer.out_width, outputs.inputs = layer.outputs;
    return outputs;
}

template <int kVectors>
void add_adjoint(const std::vector<AdjointPart>& parts, const Events& events, Wide& image) {
    for (const AdjointPart& part : parts) add_convolution<kVectors>(part.layer, events, part.weights, part.grid, image);
}

// Call f<number of vectors>() for so many channels.
template <typename F>
void with_vectors(int64_t channels, F f) {
    switch (padded(channels) / kLanes) {
        case 1: return f(std::integral_constant<int, 1>());
        case 2: return f(std::integral_constant<int, 2>());
        case 3: return f(std::integral_constant<int, 3>());
        case 4: return f(std::integral_constant<int, 4>());
        case 5: return f(std::integral_constant<int, 5>());
        case 6: return f(std::integral_constant<int, 6>());
        case 7: return f(std::integral_constant<int, 7>());
        case 8: return f(std::integral_constant<int, 8>());
    }
}

}  // namespace

extern "C" {

// An iteration's tensors are freed and wanted again in the next: giving their pages back to the system in between,
// to be given them again and zeroed, is a tenth of its time.
void keep_freed_memory() {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
#endif
}

// What each byte of a frame stands for.
void look_up(const uint8_t* bytes, const float* table, int64_t count, int32_t threads, float* values) {
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) values[i] = table[bytes[i]];
}

// Channel means of the summed currents: what the batch norm takes off. Exact up to the final rounding.
void dendrite_means(const Layer* layer, const float* current, float* means) {
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

// Messages of a layer. sums: the sum of their magnitudes, and how many are not zero after the first frame.
void encode(const Layer* layer, const float* current, const float* mean, const float* gain, float* messages, double* sums) {
    const std::vector<float> bias = per_neuron(*layer, mean);
    std::vector<Sums> parts(block_count(*layer));
    for_each_block(*layer, [&](int64_t n, int64_t first, int64_t count, int64_t u) {
        const int64_t offset = n * layer->frames * layer->neurons + first;
        const float* block_gain = gain ? gain + n * layer->neurons + first : kOnes.data();
        parts[u] = layer->has_dendrite
            ? encode_block<true>(*layer, current + offset, &bias[first], block_gain, count, messages + offset)
            : encode_block<false>(*layer, current + offset, &bias[first], block_gain, count, messages + offset);
    });
    sums[0] = sums[1] = 0;
    for (const Sums& part : parts) sums[0] += part.magnitude, sums[1] += part.events;
}

// Gradient of the threshold (returned), of the activations, and of each channel's mean, for every frame that it counts in.
// slope: gradient of the messages' magnitudes. mean_passes: per channel, how much of the mean's gradient its
// quantisation lets through (0 or 1); null: mean is constant.
double activation_gradients(const Layer* layer, const float* current, const float* mean, const float* mean_passes,
                            const float* gain, const float* message_gradient, float slope, float* gradient, float* shares) {
    const std::vector<float> bias = per_neuron(*layer, mean);
    std::vector<double> parts(block_count(*layer));
    std::vector<float> sums(layer->sequences * layer->neurons);
    for_each_block(*layer, [&](int64_t n, int64_t first, int64_t count, int64_t u) {
        const int64_t offset = n * layer->frames * layer->neurons + first;
        const float* block_gain = gain ? gain + n * layer->neurons + first : kOnes.data();
        parts[u] = block_activation_gradients(*layer, current + offset, &bias[first], block_gain, message_gradient + offset,
                                              slope, count, gradient + offset, &sums[n * layer->neurons + first]);
    });
    std::fill_n(shares, layer->channels, 0.0f);
    if (mean_passes) {
        channel_means(*layer, sums, shares);
        for (int64_t c = 0; c < layer->channels; c++) shares[c] *= mean_passes[c];
    }
    return std::accumulate(parts.begin(), parts.end(), 0.0);
}

// In place, from the gradient of the activations that of the current.
void current_gradients(const Layer* layer, const float* shares, float* gradient) {
    const std::vector<float> share = per_neuron(*layer, shares);
    for_each_block(*layer, [&](int64_t n, int64_t first, int64_t count, int64_t) {
        block_current_gradients(*layer, &share[first], count, gradient + n * layer->frames * layer->neurons + first);
    });
}

// Of a layer without a dendrite: how each event depends on the threshold; returns how the sum of magnitudes does.
double sensitivities(const Layer* layer, const float* current, float* values) {
    std::vector<double> parts(block_count(*layer));
    for_each_block(*layer, [&](int64_t n, int64_t first, int64_t count, int64_t u) {
        const int64_t offset = n * layer->frames * layer->neurons + first;
        parts[u] = block_sensitivities(*layer, current + offset, count, values + offset);
    });
    return std::accumulate(parts.begin(), parts.end(), 0.0);
}

double inner_product(const float* a, const float* b, int64_t count, int32_t threads) {
    std::vector<double> parts((count + kBlock - 1) / kBlock);
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < count; first += kBlock) {
        float sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = first; i < std::min(first + kBlock, count); i++) sum += a[i] * b[i];
        parts[first / kBlock] = sum;
    }
    return std::accumulate(parts.begin(), parts.end(), 0.0);
}

// weights: [y][x][input][output].
void convolve_events(const Convolution* layer, const float* images, const float* weights, float* out) {
    Wide wide_weights(layer->kernel_size() * layer->inputs, layer->outputs);
    wide_weights.read(weights);
    const Grid everywhere = {0, layer->out_width, 1};
    with_vectors(layer->outputs, [&](auto vectors) {
        #pragma omp parallel num_threads(layer->threads)
        {
            Events events;
            Wide current(layer->out_height * layer->out_width, layer->outputs);
            #pragma omp for schedule(static)
            for (int64_t n = 0; n < layer->images; n++) {
                events.gather(*layer, images + n * layer->image_size());
                current.clear();
                add_convolution<vectors>(*layer, events, wide_weights, everywhere, current);
                current.write(out + n * layer->out_image_size());
            }
        }
    });
}

// Gradient of the events, from that of the activations behind the synapse. It is the adjoint of the gradient of the
// current, which is dense: in each frame that of all later frames, plus what the activations of this frame add, less
// the share of the mean. The adjoint is linear, so it is taken of what is added, which is zero where neurons rest.
// weights: [y][x][output][input].
void event_gradients(const Convolution* layer, int64_t frames, const float* activation_gradient, const float* shares,
                     const float* weights, float* gradient) {
    const std::vector<AdjointPart> parts = adjoint(*layer, weights);
    const Convolution outputs = turned(*layer);
    with_vectors(layer->inputs, [&](auto vectors) {
        std::vector<float> everywhere(layer->out_image_size());
        for (size_t i = 0; i < everywhere.size(); i++) everywhere[i] = -shares[i % layer->outputs];
        Events events;
        events.gather(outputs, everywhere.data());
        Wide means_part(layer->height * layer->width, layer->inputs);
        add_adjoint<vectors>(parts, events, means_part);
        #pragma omp parallel for num_threads(layer->threads) schedule(static) firstprivate(events)
        for (int64_t sequence = 0; sequence < layer->images / frames; sequence++) {
            Wide later(means_part.rows, means_part.channels);
            for (int64_t t = frames - 1; t >= 0; t--) {
                const int64_t n = sequence * frames + t;
                for (size_t i = 0; i < later.values.size(); i++) later.values[i] += means_part.values[i];
                events.gather(outputs, activation_gradient + n * layer->out_image_size());
                add_adjoint<vectors>(parts, events, later);
                later.write(gradient + n * layer->image_size());
            }
        }
    });
}

// Gradient of the weights, [y][x][input][output].
void event_weight_gradient(const Convolution* layer, const float* images, const float* gradient, float* weight_gradient) {
    const int64_t count = std::min<int64_t>(layer->images, 16), rows = layer->kernel_size() * layer->inputs;
    std::vector<Wide> parts(count, Wide(rows, layer->outputs));
    with_vectors(layer->outputs, [&](auto vectors) {
        #pragma omp parallel num_threads(layer->threads)
        {
            Events events;
            Wide wide_gradient(layer->out_height * layer->out_width, layer->outputs);
            #pragma omp for schedule(static)
            for (int64_t part = 0; part < count; part++)
                for (int64_t n = part * layer->images / count; n < (part + 1) * layer->images / count; n++) {
                    events.gather(*layer, images + n * layer->image_size());
                    wide_gradient.read(gradient + n * layer->out_image_size());
                    add_weight_gradient<vectors>(*layer, events, wide_gradient, parts[part]);
                }
        }
    });
    Wide total(rows, layer->outputs);
    for (const Wide& part : parts)  // in one order, whatever the number of threads
        for (size_t i = 0; i < total.values.size(); i++) total.values[i] += part.values[i];
    total.write(weight_gradient);
}

}  // extern "C"
