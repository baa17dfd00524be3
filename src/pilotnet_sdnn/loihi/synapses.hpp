// What the events of a layer bring to the next one.

#pragma once

#include <algorithm>

#include "vectors.hpp"

namespace {

// Add what an event brings to a row of sums. kVectors of an output and kTaps are 0 where they are known only here.
template <int kVectors, int kGroup, int kTaps>
inline void add_event(const Layer& layer, int64_t some_taps, const int32_t* messages, const Vector* weight,
                      Vector* target) {
    const int64_t vectors = kVectors ? kVectors : layer.vectors, taps = kTaps ? kTaps : some_taps;
    const int64_t step = layer.tap_step;
    int32_t group[kGroup];
    std::copy_n(messages, kGroup, group);
#pragma GCC unroll 3
    for (int64_t tap = 0; tap < taps; tap++)
#pragma GCC unroll 8
        for (int64_t v = 0; v < vectors; v++) {
            Vector total = target[v - tap * vectors];
            for (int64_t pair = 0; pair < kGroup; pair++)
                total = multiply_add(total, group[pair], weight[tap * step + pair * vectors + v]);
            target[v - tap * vectors] = total;
        }
}

// Add what a list of events brings. Neighbours in the list reach the same sums, and would wait for each other: events
// take turns that are far apart.
template <int kVectors, int kGroup, int kTaps>
void add_list(Layer layer, const Events& events, int64_t begin, int64_t end, int64_t taps, const Vector* weights,
              Vector* sums) {
    constexpr int64_t kTurns = 4;
    const int32_t *messages = events.messages, *weight = events.weight, *target = events.target;
    const auto add = [&](int64_t event) __attribute__((always_inline)) {
        add_event<kVectors, kGroup, kTaps>(layer, taps, messages + event * kGroup, weights + weight[event],
                                           sums + target[event]);
    };
    const int64_t apart = (end - begin) / kTurns;
    for (int64_t i = begin; i < begin + apart; i++)
        for (int64_t turn = 0; turn < kTurns; turn++) add(i + turn * apart);
    for (int64_t event = begin + kTurns * apart; event < end; event++) add(event);
}

template <int kVectors, int kGroup>
void add_events(const Layer& layer, const Events& events, int64_t begin, int64_t end, int64_t taps,
                const Vector* weights, Vector* sums) {
    static constexpr auto of = {add_list<kVectors, kGroup, 0>, add_list<kVectors, kGroup, 1>,
                                add_list<kVectors, kGroup, 2>, add_list<kVectors, kGroup, 3>};
    if (begin < end && taps) of.begin()[taps < 4 ? taps : 0](layer, events, begin, end, taps, weights, sums);
}

typedef void (*AddEvents)(const Layer&, const Events&, int64_t, int64_t, int64_t, const Vector*, Vector*);

template <int kGroup>
AddEvents add_events_of(int64_t vectors) {
    static constexpr AddEvents of[] = {add_events<0, kGroup>, add_events<1, kGroup>, add_events<2, kGroup>,
                                       add_events<3, kGroup>, add_events<4, kGroup>};
    return of[vectors < 5 ? vectors : 0];
}

// The same for messages that are no int16.
void add_large(const Layer& layer, const Events& events, int64_t begin, int64_t end, const Vector* weights,
               Vector* sums) {
    for (int64_t event = begin; event < end; event++) {
        const Vector* weight = weights + events.large_weight[event] / 2;
        Vector* target = sums + events.large_target[event];
        const int32_t half = events.large_weight[event] % 2;
        for (int64_t tap = 0; tap < layer.taps; tap++, weight += layer.tap_step, target -= layer.vectors)
            for (int64_t v = 0; v < layer.vectors; v++)
                target[v] += (half ? weight[v] >> 16 : weight[v] << 16 >> 16) * events.large[event];
    }
}

// The sums that reach a row of neurons; false if no event does, unless `all` are wanted.
bool add_up(const Layer& layer, const Events& events, int64_t y, bool all, Vector* sums) {
    const AddEvents add = (layer.pairs == 2 ? add_events_of<2> : add_events_of<1>)(layer.vectors);
    const int64_t top = y * layer.stride_y - layer.padding_y;
    const int64_t first = std::clamp<int64_t>(top, 0, layer.in_height);
    const int64_t last = std::clamp<int64_t>(top + layer.kernel_height, first, layer.in_height);
    const int64_t begin = events.row[first], end = events.row[last];
    const int64_t fewer_begin = events.fewer_row[first], fewer_end = events.fewer_row[last];
    const int64_t large_begin = events.large_row[first], large_end = events.large_row[last];
    if (begin == end && fewer_begin == fewer_end && large_begin == large_end && !all) return false;
    std::memset(sums, 0, layer.row_vectors * sizeof(Vector));
    const Vector* weights = reinterpret_cast<const Vector*>(layer.weights) - top * layer.kernel_step;
    add(layer, events, begin, end, layer.taps, weights, sums);
    add(layer, events, fewer_begin, fewer_end, layer.taps - 1, weights, sums);
    add_large(layer, events, large_begin, large_end, weights, sums);
    return true;
}

}  // namespace
