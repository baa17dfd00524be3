// Sixteen int32 at a time, on whatever the processor has.

#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "runtime.hpp"

typedef int32_t Vector __attribute__((vector_size(kLanes * sizeof(int32_t)), aligned(4), may_alias));

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

}  // namespace
