// One vector type for every instruction set, and the elementary functions the kernels need.
//
// The file is compiled once per instruction set, inside namespace SEMAMBA_NAMESPACE, with VL floats in a vector.
// GCC and Clang vector extensions do the rest; intrinsics only where they lack an instruction that matters (`exp2`).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

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

// 2^x for x in [-126, 127], saturating outside (AVX-512: gradually); NaN stays NaN. Relative error below 3e-7.
// The polynomial is the minimax one of degree 5 for 2^f on [-0.5, 0.5] with the constant term 1.
static inline vec exp2_unit(vec f) {
    vec p = all(1.326472533e-03f);
    p = p * f + all(9.671512770e-03f);
    p = p * f + all(5.550733749e-02f);
    p = p * f + all(2.402224208e-01f);
    p = p * f + all(6.931469776e-01f);
    return p * f + all(1.f);
}

static inline vec exp2(vec x) {
#if defined(__AVX512F__)
    const __m512 whole = _mm512_maskz_roundscale_ps(0xffff, (__m512)x, 0);
    return (vec)_mm512_maskz_scalef_ps(0xffff, (__m512)exp2_unit((vec)_mm512_maskz_reduce_ps(0xffff, (__m512)x, 0)), whole);
#else
#if defined(__AVX2__)  // one instruction each; the second operand is returned for NaN
    x = (vec)_mm256_max_ps(_mm256_set1_ps(-126.f), (__m256)x);
    x = (vec)_mm256_min_ps(_mm256_set1_ps(127.f), (__m256)x);
#else
    x = select(x < all(-126.f), all(-126.f), x);
    x = select(x > all(127.f), all(127.f), x);
#endif
    const vec shifted = x + all(12582912.f);  // 1.5 * 2^23: the low mantissa bits now hold round(x)
    const vec f = x - (shifted - all(12582912.f));
    return reinterpret_cast<vec>(reinterpret_cast<ivec>(exp2_unit(f)) + (reinterpret_cast<ivec>(shifted) << 23));
#endif
}

constexpr float kLog2E = 1.44269504f;

static inline vec exp(vec x) { return exp2(x * all(kLog2E)); }

static inline vec sigmoid(vec x) { return all(1.f) / (all(1.f) + exp(-x)); }

// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), accurate where it is small: the polynomial is log1p(y) / y on [0, 1] with a
// relative error below 2e-7.
static inline vec softplus(vec x) {
    const ivec negative = x < all(0.f);  // not of NaN, which so stays NaN in the result
    const vec y = exp(select(negative, x, -x));
    vec p = all(5.2326914503e-03f);
    p = p * y + all(-2.9505227502e-02f);
    p = p * y + all(7.8225933518e-02f);
    p = p * y + all(-1.3663244237e-01f);
    p = p * y + all(1.9106006028e-01f);
    p = p * y + all(-2.4842982026e-01f);
    p = p * y + all(3.3319096784e-01f);
    p = p * y + all(-4.9999493139e-01f);
    p = p * y + all(9.9999996988e-01f);
    return select(negative, all(0.f), x) + p * y;
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

// Vectors of columns that one tile of `gemm` holds in registers.
#if defined(__AVX512F__)  // 32 registers: 24 accumulators
constexpr int kTileColumns = 4;
#else
constexpr int kTileColumns = 2;
#endif

static inline void any_strip(int64_t columns, int64_t M, int64_t K, const float* A, int64_t a_row, int64_t a_col, const float* B,
                             int64_t ldb, float* C, int64_t ldc, bool accumulate) {
    switch (columns) {
#if defined(__AVX512F__)
        case 4: return strip<4>(M, K, A, a_row, a_col, B, ldb, C, ldc, accumulate);
        case 3: return strip<3>(M, K, A, a_row, a_col, B, ldb, C, ldc, accumulate);
#endif
        case 2: return strip<2>(M, K, A, a_row, a_col, B, ldb, C, ldc, accumulate);
        default: return strip<1>(M, K, A, a_row, a_col, B, ldb, C, ldc, accumulate);
    }
}

static inline void gemm(int64_t M, int64_t N, int64_t K, const float* A, int64_t a_row, int64_t a_col, const float* B,
                        int64_t ldb, float* C, int64_t ldc, bool accumulate) {
    for (int64_t n = 0; n < N; n += kTileColumns * VL) {
        const int64_t columns = N - n < kTileColumns * VL ? (N - n) / VL : kTileColumns;
        any_strip(columns, M, K, A, a_row, a_col, B + n, ldb, C + n, ldc, accumulate);
    }
}

// A matrix B (K, N) for `gemm_packed`: one panel for each strip of columns, row after row without gaps. With the long rows of B
// itself a strip falls into few sets of the first-level cache and is read from the second level again for every tile.
static inline float& packed_at(float* B, int64_t K, int64_t N, int64_t k, int64_t n) {
    const int64_t width = kTileColumns * VL, first = n / width * width, columns = N - first < width ? N - first : width;
    return B[first * K + k * columns + n - first];
}

static inline void gemm_packed(int64_t M, int64_t N, int64_t K, const float* A, int64_t a_row, int64_t a_col, const float* B,
                               float* C, int64_t ldc, bool accumulate) {
    for (int64_t n = 0; n < N; n += kTileColumns * VL) {
        const int64_t columns = N - n < kTileColumns * VL ? (N - n) / VL : kTileColumns;
        any_strip(columns, M, K, A, a_row, a_col, B + n * K, columns * VL, C + n, ldc, accumulate);
    }
}

}  // namespace SEMAMBA_NAMESPACE
