#include "runtime.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

typedef int32_t Vector __attribute__((vector_size(kLanes * sizeof(int32_t)), aligned(4), may_alias));

constexpr int32_t kMessageBits = 6;  // of a change that a message lacks
constexpr int32_t kInputBits = 6;  // from a step of the input to a message

namespace {

// sums += even message * even weight + odd message * odd weight, in every lane.
inline Vector multiply_add(Vector sums, int32_t messages, const Vector& weights) {
#if defined(__AVX512VNNI__)
    return (Vector)_mm512_dpwssd_epi32((__m512i)sums, _mm512_set1_epi32(messages), (__m512i)weights);
#elif defined(__AVX512BW__)
    return sums + (Vector)_mm512_madd_epi16(_mm512_set1_epi32(messages), (__m512i)weights);
#elif defined(__AVX2__)
    __m256i halves[2];
    std::memcpy(halves, &weights, sizeof halves);
    for (__m256i& half : halves) half = _mm256_madd_epi16(_mm256_set1_epi32(messages), half);
    Vector products;
    std::memcpy(&products, halves, sizeof products);
    return sums + products;
#else
    const int32_t even = static_cast<int16_t>(messages), odd = messages >> 16;
    return sums + (weights << 16 >> 16) * even + (weights >> 16) * odd;
#endif
}

inline int32_t sum(const Vector& values) {
    int32_t total = 0;
    for (int64_t i = 0; i < kLanes; i++) total += values[i];
    return total;
}

struct Counts {
    int64_t events = 0, reached = 0;  // reached: outputs along a row, summed over events
};

// Add what a row of events brings to a row of sums; kVectors of an output, 0 if known only here.
template <int kVectors, int kGroup>
void add_row(const Layer& layer, const Events& events, int64_t row, const Vector* weights, Vector* sums) {
    const int64_t vectors = kVectors ? kVectors : layer.vectors;
    for (int64_t event = events.row[row]; event < events.row[row + 1]; event++) {
        const int32_t* messages = events.messages + event * kGroup;
        const Vector* weight = weights + events.weight[event];
        Vector* target = sums + events.target[event];
        for (int64_t tap = 0; tap < layer.taps; tap++, weight += layer.tap_step, target -= vectors) {
#pragma GCC unroll 8
            for (int64_t v = 0; v < vectors; v++)
                for (int64_t pair = 0; pair < kGroup; pair++)
                    target[v] = multiply_add(target[v], messages[pair], weight[pair * vectors + v]);
        }
    }
}

typedef void (*AddRow)(const Layer&, const Events&, int64_t, const Vector*, Vector*);

template <int kGroup>
AddRow add_row_of(int64_t vectors) {
    static constexpr AddRow of[] = {add_row<0, kGroup>, add_row<1, kGroup>, add_row<2, kGroup>, add_row<3, kGroup>,
                                    add_row<4, kGroup>, add_row<5, kGroup>, add_row<6, kGroup>, add_row<7, kGroup>};
    return of[vectors < 8 ? vectors : 0];
}

// The same for messages that are no int16.
void add_large(const Layer& layer, const Events& events, int64_t row, const Vector* weights, Vector* sums) {
    for (int64_t event = events.large_row[row]; event < events.large_row[row + 1]; event++) {
        const Vector* weight = weights + events.large_weight[event] / 2;
        Vector* target = sums + events.large_target[event];
        const int32_t half = events.large_weight[event] % 2;
        for (int64_t tap = 0; tap < layer.taps; tap++, weight += layer.tap_step, target -= layer.vectors)
            for (int64_t v = 0; v < layer.vectors; v++)
                target[v] += (half ? weight[v] >> 16 : weight[v] << 16 >> 16) * events.large[event];
    }
}

// The sums that reach a row of neurons; false if no event does.
bool add_up(const Layer& layer, const Events& events, int64_t y, Vector* sums) {
    const AddRow add = (layer.pairs == 2 ? add_row_of<2> : add_row_of<1>)(layer.vectors);
    const int64_t top = y * layer.stride_y - layer.padding_y;
    const int64_t first = std::max<int64_t>(-top, 0), last = std::min(layer.kernel_height, layer.in_height - top);
    bool reached = false;
    for (int64_t ky = first; ky < last; ky++)
        reached |= events.row[top + ky] != events.row[top + ky + 1] ||
                   events.large_row[top + ky] != events.large_row[top + ky + 1];
    if (!reached) return false;
    std::memset(sums, 0, layer.row_vectors * sizeof(Vector));
    for (int64_t ky = first; ky < last; ky++) {
        const Vector* weights = reinterpret_cast<const Vector*>(layer.weights) + ky * layer.kernel_step;
        add(layer, events, top + ky, weights, sums);
        add_large(layer, events, top + ky, weights, sums);
    }
    return true;
}

// A list of events that grows.
struct Writer {
    Events events;
    const Layer& layer;  // that sends them
    int64_t step;  // Vectors of weights from one pair to the next, in the layer that receives them
    int64_t count = 0, large = 0;

    Writer(const Events& events, const Layer& layer, const Layer& next)
        : events(events), layer(layer), step(next.vectors) {}

    void begin_row(int64_t row) {
        events.row[row] = static_cast<int32_t>(count);
        events.large_row[row] = static_cast<int32_t>(large);
    }

    // Append the messages, which are not all int16.
    void append_large(Vector& messages, int64_t x, int64_t first) {
        for (int64_t i = 0; i < kLanes; i++) {
            if (messages[i] == static_cast<int16_t>(messages[i])) continue;
            events.large[large] = messages[i];
            const int64_t weight = layer.column_weight[x] + (first + i) / 2 * step;
            events.large_weight[large] = static_cast<int32_t>(2 * weight + i % 2);
            events.large_target[large++] = layer.column_target[x];
            messages[i] = 0;
        }
    }

    // Append the messages of the channels from `first` on, at column x.
    void append(Vector messages, int64_t x, int64_t first, Counts& counts) {
        const int32_t weight = static_cast<int32_t>(layer.column_weight[x] + first / 2 * step);
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        const int32_t sent = __builtin_popcount(_mm512_test_epi32_mask((__m512i)messages, (__m512i)messages));
        __m256i narrow = _mm512_cvtsepi32_epi16((__m512i)messages);
        if (__builtin_expect(
                _mm512_cmpneq_epi32_mask(_mm512_cvtepi16_epi32(narrow), (__m512i)messages) != 0, 0)) {
            append_large(messages, x, first);
            narrow = _mm512_cvtepi32_epi16((__m512i)messages);
        }
        const __mmask8 pairs = _mm256_test_epi32_mask(narrow, narrow);
        const __m256i order = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        const __m256i weights = _mm256_add_epi32(
            _mm256_mullo_epi32(order, _mm256_set1_epi32(static_cast<int32_t>(step))), _mm256_set1_epi32(weight));
        const auto put = [this](int32_t* list, __m256i values) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(list + count), values);
        };
        put(events.messages, _mm256_maskz_compress_epi32(pairs, narrow));
        put(events.weight, _mm256_maskz_compress_epi32(pairs, weights));
        put(events.target, _mm256_set1_epi32(layer.column_target[x]));
        count += __builtin_popcount(pairs);
#else
        const int32_t sent = -sum(messages != 0);
        if (!sent) return;
        if (sum((messages << 16 >> 16) != messages)) append_large(messages, x, first);
        for (int32_t pair = 0; pair < kPairs; pair++) {  // without branches: most often few are events
            const int32_t both = (messages[2 * pair] & 0xffff) | static_cast<int32_t>(static_cast<uint32_t>(messages[2 * pair + 1]) << 16);
            events.messages[count] = both;
            events.weight[count] = weight + pair * static_cast<int32_t>(step);
            events.target[count] = layer.column_target[x];
            count += both != 0;
        }
#endif
        counts.events += sent;
        counts.reached += sent * layer.column_fan_out[x];
    }
};

// Take in a row of sums (null: nothing arrived) and send what has changed enough.
template <bool kCorrected>
void fire(const Layer& layer, const Neurons& neurons, int64_t y, const Vector* sums, Writer& out, Counts& counts) {
    const int64_t first = y * layer.width * layer.vectors;
    Vector* __restrict sigma = reinterpret_cast<Vector*>(neurons.sigma) + first;
    Vector* __restrict sent = reinterpret_cast<Vector*>(neurons.sent) + first;
    const Vector* bias = reinterpret_cast<const Vector*>(layer.bias);
    const int32_t up = static_cast<int32_t>(layer.shift_up), down = static_cast<int32_t>(layer.shift_down);
    for (int64_t x = 0, at = 0; x < layer.width; x++)
        for (int64_t v = 0; v < layer.vectors; v++, at++) {
            Vector total = sigma[at];
            if (sums) sigma[at] = total += sums[at] << up >> down;
            Vector activation = total + bias[v];
            activation &= activation > 0;
            Vector change = activation - sent[at];
            const Vector sign = change >> 31;
            change &= ((change ^ sign) - sign) > layer.threshold;
            sent[at] += kCorrected ? change & -(1 << kMessageBits) : change;
            out.append(change >> kMessageBits, x, v * kLanes, counts);
        }
}

void read_out(const Layer& layer, const Neurons& neurons, int64_t y, const Vector* sums) {
    Vector* sigma = reinterpret_cast<Vector*>(neurons.sigma) + y * layer.width * layer.vectors;
    for (int64_t i = 0; i < layer.width * layer.vectors; i++)
        sigma[i] += sums[i] << static_cast<int32_t>(layer.shift_up) >> static_cast<int32_t>(layer.shift_down);
}

// Send which pixels have changed enough; kChannels of a pixel, 0 if known only here.
template <int kChannels>
void encode(const Layer& layer, int64_t pairs, const uint8_t* frame, Stream& own, Writer& out) {
    const int64_t channels = kChannels ? kChannels : layer.channels, size = layer.width * channels;
    const int16_t threshold = static_cast<int16_t>(layer.threshold);
    int16_t* __restrict row = own.input;
    own.sent[0] = own.operations[0] = 0;
    for (int64_t y = 0; y < layer.height; y++) {
        out.begin_row(y);
        const uint8_t* __restrict pixels = frame + y * size;
        int16_t* __restrict sent = reinterpret_cast<int16_t*>(own.neurons[0].sent) + y * size;
        int16_t any = 0;
        for (int64_t i = 0; i < size; i++) {
            const uint16_t scaled = 64 * pixels[i] + 127;
            const int16_t rounded = static_cast<uint16_t>(scaled + 1 + (scaled >> 8)) >> 8;  // scaled / 255
            const int16_t change = 2 * rounded - 64 - sent[i];
            const int16_t large_enough = (change < 0 ? -change : change) > threshold ? change : 0;
            sent[i] += large_enough;
            row[i] = static_cast<int16_t>(large_enough << kInputBits);
            any |= row[i];
        }
        if (!any) continue;
        Counts counts;
        for (int64_t x = 0; x < layer.width; x++) {
            const int16_t* pixel = row + x * channels;
            int32_t events = 0;
            for (int64_t c = 0; c < channels; c++) events += pixel[c] != 0;
            counts.events += events;
            counts.reached += events * layer.column_fan_out[x];
            for (int64_t c = 0; c < channels; c += 2 * pairs) {
                int16_t group[4] = {};
                std::copy_n(pixel + c, std::min(2 * pairs, channels - c), group);
                int64_t bits;
                std::memcpy(&bits, group, sizeof bits);
                std::memcpy(out.events.messages + out.count * pairs, group, pairs * sizeof(int32_t));
                out.events.weight[out.count] = static_cast<int32_t>(layer.column_weight[x] + c / 2 * out.step);
                out.events.target[out.count] = layer.column_target[x];
                out.count += bits != 0;
            }
        }
        own.sent[0] += counts.events;
        own.operations[0] += counts.reached * layer.row_fan_out[y];
    }
    out.begin_row(layer.height);
}

}  // namespace

extern "C" void step(const Layer* layers, int64_t count, Stream* stream, const uint8_t* frame) {
    Stream& own = *stream;
    Events in = own.events[0], out = own.events[1];
    Vector* sums = reinterpret_cast<Vector*>(own.sums);
    Writer first(in, layers[0], layers[1]);
    (layers[0].channels == 3 ? encode<3> : encode<0>)(layers[0], layers[1].pairs, frame, own, first);
    for (int64_t n = 1; n < count; n++, std::swap(in, out)) {
        const Layer& layer = layers[n];
        Writer writer(out, layer, layers[std::min(n + 1, count - 1)]);
        Counts counts;
        own.operations[n] = 0;
        for (int64_t y = 0; y < layer.height; y++) {
            const Vector* arrived = add_up(layer, in, y, sums) ? sums + layer.halo : nullptr;
            if (layer.is_readout) {
                if (arrived) read_out(layer, own.neurons[n], y, arrived);
                continue;
            }
            writer.begin_row(y);
            const int64_t before = counts.reached;
            if (arrived || own.all)
                (own.corrected ? fire<true> : fire<false>)(layer, own.neurons[n], y, arrived, writer, counts);
            own.operations[n] += (counts.reached - before) * layer.row_fan_out[y];
        }
        own.sent[n] = counts.events;
        if (!layer.is_readout) writer.begin_row(layer.height);
    }
    own.all = false;
}
