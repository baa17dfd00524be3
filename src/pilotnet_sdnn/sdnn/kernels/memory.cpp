// Plain passes over memory.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "lanes.hpp"

extern "C" {

// Keep the memory of freed tensors for the next iteration. Returning its pages to the system, and getting them back
// zeroed, takes a tenth of an iteration.
void keep_freed_memory() {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
#endif
}

// What each byte of a frame stands for.
void look_up(const uint8_t* bytes, const float* table, int64_t count, int32_t threads, float* values) {
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) values[i] = table[bytes[i]];
}

double inner_product(const float* a, const float* b, int64_t count, int32_t threads) {
    std::vector<double> parts((count + kBlock - 1) / kBlock);
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < count; first += kBlock) {
        float sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = first; i < std::min(first + kBlock, count); i++) sum += a[i] * b[i];
        parts[first / kBlock] = sum;
    }
    return std::accumulate(parts.begin(), parts.end(), 0.0);
}

}  // extern "C"
