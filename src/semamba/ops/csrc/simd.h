// One vector type for every instruction set, and the elementary functions the kernels need.
//
// The file is compiled once per instruction set, inside namespace SEMAMBA_NAMESPACE, with VL floats in a vector.
// GCC and Clang vector extensions do the rest: there is no intrinsic in this project.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace SEMAMBA_NAMESPACE {

#if defined(__AVX512F__)
constexpr int VL = 16;
#elif defined(__AVX2__)
constexpr int VL = 8;
#else
constexpr int VL = 4;
#endif

typedef float vec __attribute__((vector_size(4 * VL)));
typedef int32_t ivec __attribute__((vector_size(4 * VL)));
typedef float unaligned_vec __attribute__((vector_size(4 * VL), aligned(4), may_alias));

static inline int64_t padded(int64_t n) { return (n + VL - 1) / VL * VL; }
static inline vec load(const float* p) { return *reinterpret_cast<const unaligned_vec*>(p); }
static inline void store(float* p, vec v) { *reinterpret_cast<unaligned_vec*>(p) = v; }
static inline vec all(float a) { return a - vec{}; }
static inline vec select(ivec condition, vec yes, vec no) { return condition ? yes : no; }

static inline float sum(vec v) {
    float total = 0;
    for (int i = 0; i < VL; ++i) total += v[i];
    return total;
}

// 2^x for x in [-126, 127], saturating outside; NaN stays NaN. Relative error below 2e-7.
static inline vec exp2(vec x) {
    x = select(x < all(-126.f), all(-126.f), x);
    x = select(x > all(127.f), all(127.f), x);
    const vec shifted = x + all(12582912.f);  // 1.5 * 2^23: the low mantissa bits now hold round(x)
    const vec f = x - (shifted - all(12582912.f));
    vec p = all(1.537070482e-4f);
    p = p * f + all(1.339984829e-3f);
    p = p * f + all(9.618373251e-3f);
    p = p * f + all(5.550329035e-2f);
    p = p * f + all(2.402264846e-1f);
    p = p * f + all(6.931472056e-1f);
    p = p * f + all(1.f);
    return reinterpret_cast<vec>(reinterpret_cast<ivec>(p) + (reinterpret_cast<ivec>(shifted) << 23));
}

constexpr float kLog2E = 1.44269504f;

static inline vec exp(vec x) { return exp2(x * all(kLog2E)); }

static inline vec sigmoid(vec x) { return all(1.f) / (all(1.f) + exp(-x)); }

// log(w) for w in [1, 2].
static inline vec log_unit(vec w) {
    const ivec upper = w > all(1.41421356f);
    const vec m = select(upper, w * all(0.5f), w) - all(1.f);
    vec p = all(7.0376836292e-2f);
    p = p * m + all(-1.1514610310e-1f);
    p = p * m + all(1.1676998740e-1f);
    p = p * m + all(-1.2420140846e-1f);
    p = p * m + all(1.4249322787e-1f);
    p = p * m + all(-1.6668057665e-1f);
    p = p * m + all(2.0000714765e-1f);
    p = p * m + all(-2.4999993993e-1f);
    p = p * m + all(3.3333331174e-1f);
    const vec m2 = m * m;
    const vec y = p * m * m2 - all(0.5f) * m2 + m;
    return y + select(upper, all(0.69314718f), all(0.f));
}

// log(1 + e^x), accurate where it is small: log1p(y) = log(1 + y) * y / ((1 + y) - 1) undoes the rounding of 1 + y.
static inline vec softplus(vec x) {
    const ivec negative = x < all(0.f);  // not of NaN, which so stays NaN in the result
    const vec y = exp(select(negative, x, -x));
    const vec w = all(1.f) + y;
    const ivec lost = w == all(1.f);
    const vec divisor = select(lost, all(1.f), w - all(1.f));
    return select(negative, all(0.f), x) + select(lost, y, log_unit(w) * y / divisor);
}

// Lane l of the result is the sum of the lanes of v[l]; v holds VL vectors and is overwritten.
template <int stride>
static inline vec sum_transposed(vec* v) {
    ivec low, high;
    for (int l = 0; l < VL; ++l) {
        low[l] = (l & stride) ? VL + l - stride : l;
        high[l] = (l & stride) ? VL + l : l + stride;
    }
    for (int i = 0; i < stride; ++i)
#if defined(__clang__)
    {
        vec r;
        for (int l = 0; l < VL; ++l) r[l] = (l & stride) ? v[i + stride][l - stride] + v[i + stride][l] : v[i][l] + v[i][l + stride];
        v[i] = r;
    }
#else
        v[i] = __builtin_shuffle(v[i], v[i + stride], low) + __builtin_shuffle(v[i], v[i + stride], high);
#endif
    if constexpr (stride == 1) return v[0];
    else return sum_transposed<stride / 2>(v);
}

// C (M, N) = [C +] A (M, K) B (K, N): A is read with any two strides, rows of B and C are contiguous, N is a multiple
// of VL. Meant for the small matrices of one chunk, all of them in cache.
template <int rows, int columns>
static inline void tile(int64_t K, const float* A, int64_t a_row, int64_t a_col, const float* B, int64_t ldb, float* C,
                        int64_t ldc, bool accumulate) {
    vec c[rows][columns];
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) c[i][j] = accumulate ? load(C + i * ldc + j * VL) : vec{};
    for (int64_t k = 0; k < K; ++k) {
        vec b[columns];
        for (int j = 0; j < columns; ++j) b[j] = load(B + k * ldb + j * VL);
        for (int i = 0; i < rows; ++i) {
            const vec a = all(A[i * a_row + k * a_col]);
            for (int j = 0; j < columns; ++j) c[i][j] += a * b[j];
        }
    }
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) store(C + i * ldc + j * VL, c[i][j]);
}

template <int columns>
static inline void strip(int64_t M, int64_t K, const float* A, int64_t a_row, int64_t a_col, const float* B, int64_t ldb,
                         float* C, int64_t ldc, bool accumulate) {
    int64_t m = 0;
    for (; m + 6 <= M; m += 6) tile<6, columns>(K, A + m * a_row, a_row, a_col, B, ldb, C + m * ldc, ldc, accumulate);
    const float* a = A + m * a_row;
    float* c = C + m * ldc;
    switch (M - m) {
        case 5: tile<5, columns>(K, a, a_row, a_col, B, ldb, c, ldc, accumulate); break;
        case 4: tile<4, columns>(K, a, a_row, a_col, B, ldb, c, ldc, accumulate); break;
        case 3: tile<3, columns>(K, a, a_row, a_col, B, ldb, c, ldc, accumulate); break;
        case 2: tile<2, columns>(K, a, a_row, a_col, B, ldb, c, ldc, accumulate); break;
        case 1: tile<1, columns>(K, a, a_row, a_col, B, ldb, c, ldc, accumulate); break;
        default: break;
    }
}

static inline void gemm(int64_t M, int64_t N, int64_t K, const float* A, int64_t a_row, int64_t a_col, const float* B,
                        int64_t ldb, float* C, int64_t ldc, bool accumulate) {
    int64_t n = 0;
#if defined(__AVX512F__)  // 32 registers: 24 accumulators
    for (; n + 4 * VL <= N; n += 4 * VL) strip<4>(M, K, A, a_row, a_col, B + n, ldb, C + n, ldc, accumulate);
#endif
    for (; n + 2 * VL <= N; n += 2 * VL) strip<2>(M, K, A, a_row, a_col, B + n, ldb, C + n, ldc, accumulate);
    for (; n + VL <= N; n += VL) strip<1>(M, K, A, a_row, a_col, B + n, ldb, C + n, ldc, accumulate);
}

}  // namespace SEMAMBA_NAMESPACE
