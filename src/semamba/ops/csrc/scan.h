// The selective scan over one chunk of steps, forward and backward, in padded local buffers.
//
// Letters as in kernels.h; Dp, Np: D and N rounded up to whole vectors. Local rows are (steps, Dp) or (steps, Np), the
// state and A are (N, Dp), so that one vector holds neighbouring channels and B_t, C_t are scalars for all of them.
//     h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t        y_t = C_t . h_t + skip u_t
#pragma once

#include "kernels.h"
#include "simd.h"

namespace SEMAMBA_NAMESPACE {

// A2 is A * log2(e). `h` (N, Dp) is read and left at the last step's state.
template <int states>
static void scan_chunk(int64_t steps, int64_t Dp, int64_t N, const float* u, const float* delta, const float* A2,
                       const float* B, const float* C, int64_t bc_row, const float* skip, float* h, float* y) {
    const int64_t count = states ? states : N;
    for (int64_t d = 0; d < Dp; d += VL) {
        const vec through = load(skip + d);
        for (int64_t t = 0; t < steps; ++t) {
            const vec x = load(u + t * Dp + d), step = load(delta + t * Dp + d), input = step * x;
            const float *b = B + t * bc_row, *c = C + t * bc_row;
            vec out = through * x;
            for (int64_t n = 0; n < count; ++n) {
                vec state = load(h + n * Dp + d);
                state = exp2(step * load(A2 + n * Dp + d)) * state + input * b[n];
                store(h + n * Dp + d, state);
                out += state * c[n];
            }
            store(y + t * Dp + d, out);
        }
    }
}

static void scan_chunk_any(int64_t steps, int64_t Dp, int64_t N, const float* u, const float* delta, const float* A2,
                           const float* B, const float* C, int64_t bc_row, const float* skip, float* h, float* y) {
    switch (N) {
        case 4: return scan_chunk<4>(steps, Dp, N, u, delta, A2, B, C, bc_row, skip, h, y);
        case 8: return scan_chunk<8>(steps, Dp, N, u, delta, A2, B, C, bc_row, skip, h, y);
        case 16: return scan_chunk<16>(steps, Dp, N, u, delta, A2, B, C, bc_row, skip, h, y);
        default: return scan_chunk<0>(steps, Dp, N, u, delta, A2, B, C, bc_row, skip, h, y);
    }
}

// Gradients of one chunk. `h0` (N, Dp) is the state before it, `dh` (N, Dp) the gradient of the state after it, left as
// the gradient of h0. `work` holds scan_work(N) floats. Writes du, ddelta (steps, Dp) and dB, dC (steps, bc_row, the first
// Np entries of each row); adds to dA (N, Dp) and dskip (Dp).
static int64_t scan_work(int64_t N) { return (kChunk + 1) * N * VL + kChunk * N * VL + 2 * kChunk * padded(N) * VL; }

static void scan_chunk_backward(int64_t steps, int64_t Dp, int64_t N, const float* u, const float* delta, const float* A,
                                const float* A2, const float* B, const float* C, int64_t bc_row, const float* skip,
                                const float* h0, const float* dy, float* dh, float* du, float* ddelta, float* dB, float* dC,
                                float* dA, float* dskip, float* work) {
    const int64_t Np = padded(N);
    float* history = work;                                 // (steps + 1, N, VL): states of this vector of channels
    float* decays = history + (kChunk + 1) * N * VL;    // (steps, N, VL)
    float* sum_b = decays + kChunk * N * VL;            // (steps, Np, VL), summed over channels at the end
    float* sum_c = sum_b + kChunk * Np * VL;
    std::memset(sum_b, 0, sizeof(float) * 2 * kChunk * Np * VL);
    for (int64_t d = 0; d < Dp; d += VL) {
        for (int64_t n = 0; n < N; ++n) store(history + n * VL, load(h0 + n * Dp + d));
        for (int64_t t = 0; t < steps; ++t) {
            const vec step = load(delta + t * Dp + d), input = step * load(u + t * Dp + d);
            const float *b = B + t * bc_row, *before = history + t * N * VL;
            float *after = history + (t + 1) * N * VL, *decay = decays + t * N * VL;
            for (int64_t n = 0; n < N; ++n) {
                const vec a = exp2(step * load(A2 + n * Dp + d));
                store(decay + n * VL, a);
                store(after + n * VL, a * load(before + n * VL) + input * b[n]);
            }
        }
        const vec through = load(skip + d);
        vec through_gradient = load(dskip + d);
        for (int64_t t = steps - 1; t >= 0; --t) {
            const vec g = load(dy + t * Dp + d), x = load(u + t * Dp + d), step = load(delta + t * Dp + d), input = step * x;
            const float *b = B + t * bc_row, *c = C + t * bc_row;
            const float *before = history + t * N * VL, *after = before + N * VL, *decay = decays + t * N * VL;
            float *to_b = sum_b + t * Np * VL, *to_c = sum_c + t * Np * VL;
            vec input_gradient{}, step_gradient{};
            for (int64_t n = 0; n < N; ++n) {
                const vec state_gradient = load(dh + n * Dp + d) + g * c[n];
                store(to_c + n * VL, load(to_c + n * VL) + g * load(after + n * VL));
                store(to_b + n * VL, load(to_b + n * VL) + state_gradient * input);
                input_gradient += state_gradient * b[n];
                const vec carried = state_gradient * load(decay + n * VL), exponent = carried * load(before + n * VL);
                step_gradient += exponent * load(A + n * Dp + d);
                store(dA + n * Dp + d, load(dA + n * Dp + d) + exponent * step);
                store(dh + n * Dp + d, carried);
            }
            store(du + t * Dp + d, input_gradient * step + g * through);
            store(ddelta + t * Dp + d, step_gradient + input_gradient * x);
            through_gradient += g * x;
        }
        store(dskip + d, through_gradient);
    }
    for (int64_t t = 0; t < steps; ++t)
        for (int64_t n = 0; n < Np; n += VL)
            for (int which = 0; which < 2; ++which) {
                vec lanes[VL];
                const float* from = (which ? sum_c : sum_b) + (t * Np + n) * VL;
                for (int i = 0; i < VL; ++i) lanes[i] = load(from + i * VL);
                store((which ? dC : dB) + t * bc_row + n, sum_transposed<VL / 2>(lanes));
            }
}

}  // namespace SEMAMBA_NAMESPACE
