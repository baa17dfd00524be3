// What neurons and convolutions share.
//
// Forward, arithmetic is lava-dl's, operation by operation, so that results are the same bits. Products are added only
// where the sum is exact (of events and weights: 24 bits hold it), so the compiler may fuse the two. A sum over neurons
// adds one partial sum per block, in one order: the number of threads does not change it.

#pragma once

#include <cstdint>

#ifdef __AVX512F__
constexpr int64_t kLanes = 16;
#else
constexpr int64_t kLanes = 8;
#endif
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

constexpr int64_t kBlock = 256;  // neurons: with fewer the memory waits, with more the state leaves L1
