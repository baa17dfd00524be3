// The exported network, frame by frame: each layer computes only what the events of the layer before it bring.
//
// Images are [row][column][channel], with channels padded to whole vectors. Numbers are int32 and wrap around, as in
// fixed_point.py, which defines what is computed. A dense layer is a convolution whose kernel covers the image.

#pragma once

#include <cstdint>

constexpr int64_t kLanes = 16;  // int32 in a Vector; without AVX-512 the compiler splits it
constexpr int64_t kPairs = kLanes / 2;

// Two messages and two weights of int16 meet in one multiplication, so an event is of a pair of channels. The structs
// below have the same fields in native.py.

// A layer of neurons, and the synapses that feed it.
struct Layer {
    int64_t height, width, channels, vectors;  // of its neurons; a pixel has `vectors` Vectors
    int64_t in_height, kernel_height, taps;  // taps: outputs along a row that an event reaches, or one less
    int64_t stride_y, padding_y;
    int64_t fewer_first;  // where the second list of events that leave begins
    int64_t tap_step, kernel_step;  // Vectors of weights from one tap, or one row of the kernel, to the next
    int64_t halo, row_vectors;  // Vectors left of the first output in a row of sums, and of the whole row
    int64_t pairs;  // of an event that arrives: 1, or 2 for the few channels of a camera
    int64_t shift_up, shift_down;  // of the sums: convolutions wrap at 24 bits, dense weights are scaled up
    int32_t threshold;  // changes above it are sent
    int32_t is_readout;
    const int16_t* weights;  // [kernel row][kernel column][pair][output, padded][2]
    const int32_t* bias;  // [output, padded]
    const int32_t* column_weight;  // of each column: where its events' weights and sums are, in Vectors,
    const int32_t* column_target;  // in the layer that they reach,
    const int32_t* column_fewer;  // 1 where they reach one output less along a row than `taps`,
    const int32_t* column_fan_out;  // and outputs inside the image, along a row; of the input, by channel
    const int32_t* row_fan_out;  // the same along a column, times channels
};

// What the neurons of a layer remember, [row][column][channel, padded]; of the input `sent` alone, int16, in 2^12.
struct Neurons {
    int32_t *sigma, *sent;
};

// The events of a layer, row by row, in two lists: the second is of columns that reach one output less along a row.
struct Events {
    int32_t *row, *fewer_row, *large_row;  // where each row begins in the lists
    int32_t* messages;  // two int16 each, `pairs` of them for an event
    int32_t *weight, *target;  // where its weights begin, and the sums they are added to
    int32_t *large, *large_weight, *large_target;  // messages that are no int16; weight: 2 * Vector + half
};

// What a stream owns.
struct Stream {
    const Neurons* neurons;  // of each layer
    const Events* events;  // two: those that arrive and those that leave
    int32_t* sums;  // a row of them
    int16_t* input;  // a row of layer-0's messages
    int64_t *sent, *operations;  // of each layer, counted in this frame: events and synaptic operations
    int32_t all, corrected;  // all: compute the neurons that nothing reached, too
};
