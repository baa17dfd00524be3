// The messages of a layer as events.

#pragma once

#include <algorithm>

#include "vectors.hpp"

namespace {

struct Counts {
    int64_t events = 0, reached = 0;  // reached: outputs along a row, summed over events
};

// Where the events of a layer are written.
struct Writer {
    Events events;
    int64_t pair_step, row_step;  // Vectors of weights from one pair, or row, to the next, in the layer they reach
    int64_t count[2], large = 0;  // where the lists end

    Writer(const Events& events, const Layer& layer, const Layer& next)
        : events(events), pair_step(next.vectors), row_step(next.kernel_step), count{0, layer.fewer_first} {}

    void begin_row(int64_t row) {
        events.row[row] = static_cast<int32_t>(count[0]);
        events.fewer_row[row] = static_cast<int32_t>(count[1]);
        events.large_row[row] = static_cast<int32_t>(large);
    }
};

// Move the messages of a row that are no int16 to their list.
Counts set_large_apart(const Layer& layer, int64_t y, int32_t* row, Writer& out) {
    Counts counts;
    for (int64_t x = 0; x < layer.width; x++)
        for (int64_t c = 0; c < layer.channels; c++) {
            int32_t& message = row[x * layer.vectors * kLanes + c];
            if (message == static_cast<int16_t>(message)) continue;
            const int64_t weight = y * out.row_step + layer.column_weight[x] + c / 2 * out.pair_step;
            out.events.large[out.large] = message;
            out.events.large_weight[out.large] = static_cast<int32_t>(2 * weight + c % 2);
            out.events.large_target[out.large++] = layer.column_target[x];
            message = 0;
            counts.events++;
            counts.reached += layer.column_fan_out[x];
        }
    return counts;
}

// Append the messages of a pixel at the end of a list. Returns how many there are.
inline int32_t append_pixel(const Vector* messages, int64_t vectors, int32_t weight, int32_t pair_step, int32_t target,
                            const Events& events, int64_t& end) {
    int32_t sent = 0;
#if defined(__AVX512BW__)
    const __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i places = _mm512_mullo_epi32(order, _mm512_set1_epi32(pair_step));
    for (int32_t v = 0; v < vectors; v += 2) {
        const __m256i none = _mm256_setzero_si256();
        const __m256i first = _mm512_cvtepi32_epi16((__m512i)messages[v]);
        const __m256i second = v + 1 < vectors ? _mm512_cvtepi32_epi16((__m512i)messages[v + 1]) : none;
        const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
        const __mmask16 pairs = _mm512_test_epi32_mask(both, both);
        const __m512i weights = _mm512_add_epi32(places, _mm512_set1_epi32(weight + v * int32_t{kPairs} * pair_step));
        _mm512_storeu_si512(events.messages + end, _mm512_maskz_compress_epi32(pairs, both));
        _mm512_storeu_si512(events.weight + end, _mm512_maskz_compress_epi32(pairs, weights));
        _mm512_storeu_si512(events.target + end, _mm512_set1_epi32(target));
        end += __builtin_popcount(pairs);
        sent += __builtin_popcount(_mm512_test_epi16_mask(both, both));
    }
#else
    for (int32_t v = 0; v < vectors; v++) {
        const int32_t here = -sum(messages[v] != 0);
        if (!here) continue;
        sent += here;
        for (int32_t pair = 0; pair < kPairs; pair++) {  // without branches: most often few are events
            const int32_t odd = static_cast<int32_t>(static_cast<uint32_t>(messages[v][2 * pair + 1]) << 16);
            const int32_t both = (messages[v][2 * pair] & 0xffff) | odd;
            events.messages[end] = both;
            events.weight[end] = weight + (v * int32_t{kPairs} + pair) * pair_step;
            events.target[end] = target;
            end += both != 0;
        }
    }
#endif
    return sent;
}

// Append a row of messages, all int16.
Counts append_row(const Layer& layer, int64_t y, const Vector* row, Writer& out) {
    const int64_t width = layer.width, vectors = layer.vectors;
    const int32_t *weight = layer.column_weight, *target = layer.column_target, *fan_out = layer.column_fan_out;
    const int32_t *fewer = layer.column_fewer, pair_step = static_cast<int32_t>(out.pair_step);
    const int32_t row_weight = static_cast<int32_t>(y * out.row_step);
    const Events events = out.events;
    Counts counts;
    for (int32_t list = 0; list < 2; list++) {
        int64_t end = out.count[list];
        for (int64_t x = 0; x < width; x++) {
            if (fewer[x] != list) continue;
            const int32_t sent = append_pixel(row + x * vectors, vectors, row_weight + weight[x], pair_step, target[x],
                                              events, end);
            counts.events += sent;
            counts.reached += sent * fan_out[x];
        }
        out.count[list] = end;
    }
    return counts;
}

// Append the messages of a row of pixels.
void append_pixels(const Layer& layer, int64_t y, int64_t pairs, const int16_t* row, Writer& out) {
    const int64_t channels = layer.channels;
    for (int64_t x = 0; x < layer.width; x++) {
        int64_t& end = out.count[layer.column_fewer[x]];
        for (int64_t c = 0; c < channels; c += 2 * pairs) {
            int16_t group[4] = {};
            std::copy_n(row + x * channels + c, std::min(2 * pairs, channels - c), group);
            int64_t bits;
            std::memcpy(&bits, group, sizeof bits);
            std::memcpy(out.events.messages + end * pairs, group, pairs * sizeof(int32_t));
            const int64_t weight = y * out.row_step + layer.column_weight[x] + c / 2 * out.pair_step;
            out.events.weight[end] = static_cast<int32_t>(weight);
            out.events.target[end] = layer.column_target[x];
            end += bits != 0;
        }
    }
}

#if defined(__AVX512BW__) && defined(__AVX512VL__)
// The same of three channels, eight pixels at a time.
void append_rgb(const Layer& layer, int64_t y, const int16_t* row, Writer& out) {
    const int64_t width = layer.width;
    alignas(64) int16_t spread[32];
    for (int16_t i = 0; i < 32; i++) spread[i] = static_cast<int16_t>(i / 4 * 3 + i % 4);
    const __m512i order = _mm512_load_si512(spread);
    const __m256i row_weight = _mm256_set1_epi32(static_cast<int32_t>(y * out.row_step));
    const Events events = out.events;
    int64_t ends[] = {out.count[0], out.count[1]};
    for (int64_t x = 0; x < width; x += 8) {
        const auto at = [x](const int32_t* list) {
            return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(list + x));
        };
        const __m512i pixels = _mm512_maskz_permutexvar_epi16(0x77777777, order, _mm512_loadu_si512(row + 3 * x));
        const __m256i weight = _mm256_add_epi32(at(layer.column_weight), row_weight), target = at(layer.column_target);
        const __mmask8 inside = static_cast<__mmask8>(x + 8 <= width ? 0xff : (1 << (width - x)) - 1);
        const __mmask8 sent = _mm512_mask_test_epi64_mask(inside, pixels, pixels);
        const __mmask8 fewer = _mm256_cmpneq_epi32_mask(at(layer.column_fewer), _mm256_setzero_si256());
        const auto append = [&](__mmask8 wanted, int64_t& end) {
            const auto put = [end](int32_t* list, __m256i values) {
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(list + end), values);
            };
            _mm512_storeu_si512(events.messages + 2 * end, _mm512_maskz_compress_epi64(wanted, pixels));
            put(events.weight, _mm256_maskz_compress_epi32(wanted, weight));
            put(events.target, _mm256_maskz_compress_epi32(wanted, target));
            end += __builtin_popcount(wanted);
        };
        append(sent & ~fewer, ends[0]);
        append(sent & fewer, ends[1]);
    }
    std::copy_n(ends, 2, out.count);
}
#endif

}  // namespace
