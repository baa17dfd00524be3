// The adjoint of a convolution, computed from events.

#pragma once

#include <cstdint>
#include <vector>

#include "events.hpp"

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
inline std::vector<AdjointPart> adjoint(const Convolution& layer, const float* weights) {
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
inline Convolution turned(const Convolution& layer) {
    Convolution outputs = layer;
    outputs.height = layer.out_height, outputs.width = layer.out_width, outputs.inputs = layer.outputs;
    return outputs;
}

template <int kVectors>
void add_adjoint(const std::vector<AdjointPart>& parts, const Events& events, Wide& image) {
    for (const AdjointPart& part : parts) add_convolution<kVectors>(part.layer, events, part.weights, part.grid, image);
}
