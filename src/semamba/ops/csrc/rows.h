// What every fused layer needs around its matrix products: RMSNorm of one position, sums of rows, one block of memory.
#pragma once

#include <cmath>
#include <vector>

#include "simd.h"

namespace SEMAMBA_NAMESPACE {

static inline void clear_padding(float* row, int64_t count) {
    for (int64_t i = count; i < padded(count); ++i) row[i] = 0.f;
}

// out = x / rms(x) * weight for one position of `count` channels, padding zero; returns 1 / rms.
static inline float normalise(const float* x, const float* weight, int64_t count, float eps, float* out) {
    const int64_t width = padded(count);
    std::memcpy(out, x, sizeof(float) * count);
    clear_padding(out, count);  // a NaN row left NaN there
    vec squares{};
    for (int64_t i = 0; i < width; i += VL) squares += load(out + i) * load(out + i);
    const float inverse = 1.f / std::sqrt(sum(squares) / static_cast<float>(count) + eps);
    for (int64_t i = 0; i < width; i += VL) store(out + i, load(out + i) * inverse * load(weight + i));
    return inverse;
}

// dx = dout (nothing when null) + the gradient of `normalise` at x for the gradient `dn` of its result; adds to dweight.
// `scratch`: width floats.
static inline void normalise_backward(const float* x, const float* weight, int64_t count, float inverse, const float* dn,
                                      const float* dout, float* dweight, float* scratch, float* dx) {
    const int64_t width = padded(count);
    std::memcpy(scratch, x, sizeof(float) * count);
    clear_padding(scratch, count);
    vec dot{};
    for (int64_t i = 0; i < width; i += VL) {
        const vec hat = load(scratch + i) * inverse, gradient = load(dn + i);
        store(dweight + i, load(dweight + i) + gradient * hat);
        dot += gradient * load(weight + i) * hat;
    }
    const float mean = sum(dot) / static_cast<float>(count) * inverse;
    for (int64_t i = 0; i < width; i += VL)
        store(scratch + i, inverse * (load(dn + i) * load(weight + i) - load(scratch + i) * mean));
    for (int64_t i = 0; i < count; ++i) dx[i] = dout ? dout[i] + scratch[i] : scratch[i];
}

static inline void add_rows(float* total, const float* rows, int64_t count, int64_t width) {
    for (int64_t t = 0; t < count; ++t)
        for (int64_t i = 0; i < width; i += VL) store(total + i, load(total + i) + load(rows + t * width + i));
}

struct Arena {
    std::vector<float> memory;
    float* next;
    explicit Arena(int64_t size) : memory(size, 0.f), next(memory.data()) {}
    float* take(int64_t n) { float* p = next; next += n; return p; }
};

}  // namespace SEMAMBA_NAMESPACE
