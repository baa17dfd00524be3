// The convolutions of events, image by image on all threads.

#include <cstdint>
#include <type_traits>
#include <vector>

#include "adjoint.hpp"
#include "events.hpp"

namespace {

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
