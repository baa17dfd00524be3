// A convolution that computes only what events bring: products with zero are skipped.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lanes.hpp"

// A convolution of images [image][y][x][channel] by weights [y][x][input][output]. `ConvolutionStruct` of library.py has
// the same fields.
struct Convolution {
    int64_t images, height, width, inputs;
    int64_t out_height, out_width, outputs;
    int64_t kernel_height, kernel_width, stride_y, stride_x, padding_y, padding_x;
    int32_t threads;

    int64_t kernel_size() const { return kernel_height * kernel_width; }
    int64_t image_size() const { return height * width * inputs; }
    int64_t out_image_size() const { return out_height * out_width * outputs; }
};

inline int64_t padded(int64_t channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

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
