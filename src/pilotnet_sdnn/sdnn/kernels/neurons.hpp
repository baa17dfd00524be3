// A block of sigma-delta neurons, over whole sequences, each way in one pass.
//
// Tensors are float32 [sequence][frame][neuron]; a neuron's channel is its fastest index. A block of neurons goes
// through all its frames while its state stays in registers and L1. The backward pass computes the forward pass again
// instead of storing it.

#pragma once

#include <cmath>
#include <cstring>
#include <numeric>

#include "lanes.hpp"

struct Neurons {  // the neurons of a layer; `NeuronsStruct` of library.py has the same fields
    int64_t sequences, frames, neurons, channels;
    int64_t batch;  // sequences of the whole batch: other processes may have the rest
    float threshold, tau_grad, scale_grad;
    float scale;           // events are floored to multiples of 1 / scale
    int32_t has_dendrite;  // sigma, norm and relu come before the delta unit: not so in the Input block
    int32_t corrected;     // what rounding takes off an event is sent later; else it is lost, as in lava-dl
    int32_t threads;
};

// What the delta units of a layer carry from frame to frame, [sequence][neuron]. `StateStruct` of library.py has the same
// fields.
struct State {
    float *activation, *residual;  // null: at rest before, not wanted after
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

// When neurons send, and what.
struct DeltaUnit {
    float threshold, scale, per_scale, kept;

    explicit DeltaUnit(const Neurons& layer)
        : threshold(layer.threshold),
          scale(layer.scale),
          per_scale(1.0f / layer.scale),
          kept(layer.corrected ? 1.0f : 0.0f) {}

    bool sends(float difference) const { return std::fabs(difference) >= threshold; }
    float rounded(float difference) const { return std::floor(difference * scale) * per_scale; }
    float event(float difference) const { return rounded(sends(difference) ? difference : 0.0f); }
    float residual(float difference) const {
        return sends(difference) ? kept * (difference - rounded(difference)) : difference;
    }
};

// A block of neurons and its step from frame to frame.
struct Block {
    float sum[kBlock] = {}, activation[kBlock] = {}, residual[kBlock] = {};

    Block(const State& state, int64_t offset, int64_t count) {
        if (!state.activation) return;
        std::memcpy(activation, state.activation + offset, count * sizeof(float));
        std::memcpy(residual, state.residual + offset, count * sizeof(float));
    }

    void save(const State& state, int64_t offset, int64_t count) const {
        if (!state.activation) return;
        std::memcpy(state.activation + offset, activation, count * sizeof(float));
        std::memcpy(state.residual + offset, residual, count * sizeof(float));
    }

    // What the delta unit of neuron i compares with the threshold: x[t] - x[t-1] + r[t-1].
    template <bool kDendrite>
    float difference(int64_t i, float current, float bias, const DeltaUnit& unit) {
        sum[i] = kDendrite ? sum[i] + current : current;
        const float rectified = sum[i] - bias > 0.0f ? sum[i] - bias : 0.0f;
        const float x = kDendrite ? rectified : sum[i];
        const float d = x - activation[i] + residual[i];
        residual[i] = unit.residual(d);
        activation[i] = x;
        return d;
    }
};

// lava-dl's surrogate for d event / d threshold.
struct Surrogate {
    float threshold, spike_scale, per_tau;

    explicit Surrogate(const Neurons& layer)
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
Sums encode_block(const Neurons layer, Block& block, const float* __restrict current, const float* bias,
                  const float* gain, int64_t count, float* messages) {
    const DeltaUnit unit(layer);
    float magnitude[kBlock] = {}, events[kBlock] = {};
    for (int64_t t = 0; t < layer.frames; t++) {
        const float* z = current + t * layer.neurons;
        float* out = messages + t * layer.neurons;
        const float counted = t > 0 ? 1.0f : 0.0f;
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            const float d = block.difference<kDendrite>(i, z[i], bias[i], unit);
            const float message = unit.event(d) * gain[i];
            out[i] = message;
            magnitude[i] += std::fabs(message);
            events[i] += message != 0.0f ? counted : 0.0f;
        }
    }
    return {std::accumulate(magnitude, magnitude + count, 0.0), std::accumulate(events, events + count, 0.0)};
}

// Returns the gradient of the threshold. Writes that of the activations, and its sum over time. A state carried from
// before the first frame is a constant.
inline double block_activation_gradients(const Neurons layer, Block& block, const float* __restrict current,
                                         const float* bias, const float* gain, const float* message_gradient,
                                         float slope, int64_t count, float* __restrict activation_gradient,
                                         float* __restrict total) {
    const DeltaUnit unit(layer);
    const Surrogate surrogate(layer);
    float threshold_gradient[kBlock] = {}, event_gradient[kBlock] = {}, sum[kBlock] = {};
    for (int64_t t = 0; t < layer.frames; t++) {
        const float* z = current + t * layer.neurons;
        const float* incoming = message_gradient + t * layer.neurons;
        const float has_before = t > 0 ? 1.0f : 0.0f;
        float* before = activation_gradient + (t > 0 ? t - 1 : 0) * layer.neurons;  // frame 0's are 0, then overwritten
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            const float was_active = block.activation[i] > 0.0f ? has_before : 0.0f;
            const float d = block.difference<true>(i, z[i], bias[i], unit);
            const float event_slope = unit.sends(d) ? slope * std::copysign(1.0f, d) : 0.0f;
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
inline void block_current_gradients(const Neurons layer, const float* share, int64_t count,
                                    float* __restrict gradient) {
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
inline double block_sensitivities(const Neurons layer, Block& block, const float* __restrict current, int64_t count,
                                  float* __restrict sensitivities) {
    float slope[kBlock] = {};
    const DeltaUnit unit(layer);
    const Surrogate surrogate(layer);
    for (int64_t t = 0; t < layer.frames; t++) {
        const float* z = current + t * layer.neurons;
        float* out = sensitivities + t * layer.neurons;
        #pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            const float d = block.difference<false>(i, z[i], 0.0f, unit);
            out[i] = surrogate(d);
            slope[i] += unit.sends(d) ? std::copysign(1.0f, d) * out[i] : 0.0f;
        }
    }
    return std::accumulate(slope, slope + count, 0.0);
}
