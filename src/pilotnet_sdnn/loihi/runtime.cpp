#include <algorithm>
#include <utility>

#include "events.hpp"
#include "synapses.hpp"

namespace {

constexpr int32_t kMessageBits = 6;  // of a change that a message lacks
constexpr int32_t kInputBits = 6;  // from a step of the input to a message

// Take in a row of sums, and leave the messages in its place. Returns whether some are no int16.
template <bool kCorrected>
bool fire(const Layer& layer, const Neurons& neurons, int64_t y, Vector* __restrict row) {
    const int64_t width = layer.width, vectors = layer.vectors, first = y * width * vectors;
    Vector* __restrict sigma = reinterpret_cast<Vector*>(neurons.sigma) + first;
    Vector* __restrict sent = reinterpret_cast<Vector*>(neurons.sent) + first;
    const Vector* __restrict bias = reinterpret_cast<const Vector*>(layer.bias);
    const int32_t up = static_cast<int32_t>(layer.shift_up), down = static_cast<int32_t>(layer.shift_down);
    const int32_t threshold = layer.threshold;
    Vector large = {};
    for (int64_t x = 0, at = 0; x < width; x++)
        for (int64_t v = 0; v < vectors; v++, at++) {
            const Vector total = sigma[at] + (row[at] << up >> down);
            sigma[at] = total;
            const Vector sum = total + bias[v], before = sent[at];
            const Vector change = (sum > 0 ? sum : sum - sum) - before;
            const Vector size = change > 0 ? change : -change;
            const Vector fired = size > threshold ? change : change - change;
            sent[at] = before + (kCorrected ? fired & -(1 << kMessageBits) : fired);
            const Vector message = fired >> kMessageBits;
            large |= (message + 0x8000) & ~0xffff;
            row[at] = message;
        }
    return sum(large != 0);
}

void read_out(const Layer& layer, const Neurons& neurons, int64_t y, const Vector* sums) {
    Vector* sigma = reinterpret_cast<Vector*>(neurons.sigma) + y * layer.width * layer.vectors;
    for (int64_t i = 0; i < layer.width * layer.vectors; i++)
        sigma[i] += sums[i] << static_cast<int32_t>(layer.shift_up) >> static_cast<int32_t>(layer.shift_down);
}

// A row of pixels: what has changed enough since it was sent, as messages. Inlined, it would not be vectorised:
// g++ then forgets that the arrays do not overlap.
__attribute__((noinline)) Counts change(const Layer& layer, const uint8_t* __restrict pixels, int16_t* __restrict sent,
                                        int16_t* __restrict row) {
    const int64_t size = layer.width * layer.channels;
    const int16_t threshold = static_cast<int16_t>(layer.threshold);
    const int32_t* __restrict fan_out = layer.column_fan_out;  // of each channel of each column
    int32_t events = 0, reached = 0;
    for (int64_t i = 0; i < size; i++) {
        const uint16_t scaled = 64 * pixels[i] + 127;
        const int16_t rounded = static_cast<uint16_t>(scaled + 1 + (scaled >> 8)) >> 8;  // scaled / 255
        const int16_t change = 2 * rounded - 64 - sent[i];
        const int16_t fires = -((change < 0 ? -change : change) > threshold) & -(change != 0);  // without branches
        sent[i] += change & fires;
        row[i] = static_cast<int16_t>((change & fires) << kInputBits);
        events -= fires;
        reached += fan_out[i] & fires;
    }
    return {events, reached};
}

// Send which pixels have changed enough.
void encode(const Layer& layer, int64_t pairs, const uint8_t* frame, Stream& own, Writer& out) {
    const int64_t size = layer.width * layer.channels;
    own.sent[0] = own.operations[0] = 0;
    for (int64_t y = 0; y < layer.height; y++) {
        out.begin_row(y);
        int16_t* sent = reinterpret_cast<int16_t*>(own.neurons[0].sent) + y * size;
        const Counts counts = change(layer, frame + y * size, sent, own.input);
        if (!counts.events) continue;
        own.sent[0] += counts.events;
        own.operations[0] += counts.reached * layer.row_fan_out[y];
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        if (layer.channels == 3) {
            append_rgb(layer, y, own.input, out);
            continue;
        }
#endif
        append_pixels(layer, y, pairs, own.input, out);
    }
    out.begin_row(layer.height);
}

}  // namespace

extern "C" void step(const Layer* layers, int64_t count, Stream* stream, const uint8_t* frame) {
    Stream& own = *stream;
    Events in = own.events[0], out = own.events[1];
    Vector* sums = reinterpret_cast<Vector*>(own.sums);
    Writer first(in, layers[0], layers[1]);
    encode(layers[0], layers[1].pairs, frame, own, first);
    for (int64_t n = 1; n < count; n++, std::swap(in, out)) {
        const Layer& layer = layers[n];
        Writer writer(out, layer, layers[std::min(n + 1, count - 1)]);
        own.sent[n] = own.operations[n] = 0;
        for (int64_t y = 0; y < layer.height; y++) {
            const bool reached = add_up(layer, in, y, own.all, sums);
            Vector* row = sums + layer.halo;
            if (layer.is_readout) {
                if (reached) read_out(layer, own.neurons[n], y, row);
                continue;
            }
            writer.begin_row(y);
            if (!reached) continue;
            Counts counts;
            if ((own.corrected ? fire<true> : fire<false>)(layer, own.neurons[n], y, row))
                counts = set_large_apart(layer, y, reinterpret_cast<int32_t*>(row), writer);
            const Counts others = append_row(layer, y, row, writer);
            own.sent[n] += counts.events + others.events;
            own.operations[n] += (counts.reached + others.reached) * layer.row_fan_out[y];
        }
        if (!layer.is_readout) writer.begin_row(layer.height);
    }
    own.all = false;
}
