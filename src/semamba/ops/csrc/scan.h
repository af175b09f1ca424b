// The selective scan over one chunk of steps, forward and backward, in padded local buffers.
//
// Letters as in kernels.h; Dp, Np: D and N rounded up to whole vectors. Local rows are (steps, Dp) or (steps, Np), the
// state and A are (N, Dp), so that one vector holds neighbouring channels and B_t, C_t are scalars for all of them.
//     h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t        y_t = C_t . h_t + skip u_t
#pragma once

#include "kernels.h"
#include "simd.h"

namespace SEMAMBA_NAMESPACE {

// Rows of the next chunk, to be fetched from memory while this one is computed.
struct Ahead {
    int64_t count = 0, step[3];  // of floats from row to row, negative backwards
    const float* rows[3];
    void fetch(int64_t t, int64_t d) const {
        for (int64_t i = 0; i < count; ++i) __builtin_prefetch(rows[i] + t * step[i] + d, 0, 2);
    }
};

// A2 is A * log2(e). `h` (N, Dp) is read and left at the last step's state. A known number of states stays in registers.
template <int states>
static void scan_chunk(int64_t steps, int64_t Dp, int64_t N, const float* u, const float* delta, const float* A2,
                       const float* B, const float* C, int64_t bc_row, const float* skip, float* h, float* y, const Ahead& ahead) {
    const int64_t count = states ? states : N;
    constexpr bool in_registers = states > 0;
    for (int64_t d = 0; d < Dp; d += VL) {
        const vec through = load(skip + d);
        vec state[in_registers ? states : 1];
        if constexpr (in_registers)
            for (int n = 0; n < states; ++n) state[n] = load(h + n * Dp + d);
        for (int64_t t = 0; t < steps; ++t) {
            ahead.fetch(t, d);
            const vec x = load(u + t * Dp + d), step = load(delta + t * Dp + d), input = step * x;
            const float *b = B + t * bc_row, *c = C + t * bc_row;
            vec out = through * x;
            if constexpr (in_registers) {
#pragma GCC unroll 16
                for (int n = 0; n < states; ++n) {
                    state[n] = exp2(step * load(A2 + n * Dp + d)) * state[n] + input * b[n];
                    out += state[n] * c[n];
                }
            } else {
                for (int64_t n = 0; n < count; ++n) {
                    const vec next = exp2(step * load(A2 + n * Dp + d)) * load(h + n * Dp + d) + input * b[n];
                    store(h + n * Dp + d, next);
                    out += next * c[n];
                }
            }
            store(y + t * Dp + d, out);
        }
        if constexpr (in_registers)
            for (int n = 0; n < states; ++n) store(h + n * Dp + d, state[n]);
    }
}

static void scan_chunk_any(int64_t steps, int64_t Dp, int64_t N, const float* u, const float* delta, const float* A2,
                           const float* B, const float* C, int64_t bc_row, const float* skip, float* h, float* y,
                           const Ahead& ahead = {}) {
    switch (N) {
        case 4: return scan_chunk<4>(steps, Dp, N, u, delta, A2, B, C, bc_row, skip, h, y, ahead);
        case 8: return scan_chunk<8>(steps, Dp, N, u, delta, A2, B, C, bc_row, skip, h, y, ahead);
        case 16: return scan_chunk<16>(steps, Dp, N, u, delta, A2, B, C, bc_row, skip, h, y, ahead);
        default: return scan_chunk<0>(steps, Dp, N, u, delta, A2, B, C, bc_row, skip, h, y, ahead);
    }
}

// One chunk of a backward pass. Rows are (steps, Dp), `B`, `C`, `dB` and `dC` have rows of `bc_row`. With `z` the output was
// gated, y silu(z): `dy` is the gradient of the gated output and is replaced by that of y, `dz` and `gated` are written.
struct ScanGradients {
    int64_t steps, Dp, N, bc_row;
    const float *u, *delta, *A, *A2, *B, *C, *skip, *h0, *z;  // h0 (N, Dp): the state before the chunk
    float *dy, *gated, *dz;
    float* dh;                   // (N, Dp): gradient of the state after the chunk, left as the gradient of h0
    float *du, *ddelta, *dB, *dC;  // written; dB and dC the first Np entries of each row
    float *dA, *dskip;           // (N, Dp) and (Dp), added to
    float* work;                 // scan_work(N) floats
};

static int64_t scan_work(int64_t N) { return ((2 * kChunk + 1) * N + 2 * kChunk * padded(N) + 2 * kChunk) * VL; }

// Parts of `work` for one vector of channels; sums over channels are finished when all vectors are through.
struct ScanHistory {
    float *states, *decays;            // (steps + 1, N, VL) and (steps, N, VL)
    float *sum_b, *sum_c;              // (steps, Np, VL)
    float *input_gradient, *step_gradient;  // (steps, VL)
    ScanHistory(int64_t N, float* work)
        : states(work), decays(states + (kChunk + 1) * N * VL), sum_b(decays + kChunk * N * VL), sum_c(sum_b + kChunk * padded(N) * VL),
          input_gradient(sum_c + kChunk * padded(N) * VL), step_gradient(input_gradient + kChunk * VL) {}
};

// The chunk again for channels [d, d + VL), every state and decay kept; then the gate, from the output that comes with it.
static void scan_again(const ScanGradients& s, const ScanHistory& w, int64_t d) {
    for (int64_t n = 0; n < s.N; ++n) store(w.states + n * VL, load(s.h0 + n * s.Dp + d));
    for (int64_t t = 0; t < s.steps; ++t) {
        const int64_t at = t * s.Dp + d;
        const vec x = load(s.u + at), step = load(s.delta + at), input = step * x;
        const float *b = s.B + t * s.bc_row, *c = s.C + t * s.bc_row, *before = w.states + t * s.N * VL;
        float *after = w.states + (t + 1) * s.N * VL, *decay = w.decays + t * s.N * VL;
        vec y = load(s.skip + d) * x;
        for (int64_t n = 0; n < s.N; ++n) {
            const vec a = exp2(step * load(s.A2 + n * s.Dp + d)), state = a * load(before + n * VL) + input * b[n];
            store(decay + n * VL, a);
            store(after + n * VL, state);
            y += state * c[n];
        }
        if (!s.z) continue;
        const vec z = load(s.z + at), gate = sigmoid(z), dy = load(s.dy + at);
        if (s.gated) store(s.gated + at, y * z * gate);
        store(s.dz + at, dy * y * gate * (all(1.f) + z * (all(1.f) - gate)));
        store(s.dy + at, dy * z * gate);
    }
}

// Backwards through states [first, first + count) of channels [d, d + VL), with what they pass on in registers.
template <int count>
static void scan_back(const ScanGradients& s, const ScanHistory& w, int64_t d, int64_t first) {
    const int64_t Np = padded(s.N);
    vec carried[count], rate[count], rate_gradient[count];
    for (int i = 0; i < count; ++i) {
        carried[i] = load(s.dh + (first + i) * s.Dp + d);
        rate[i] = load(s.A + (first + i) * s.Dp + d);
        rate_gradient[i] = vec{};
    }
    for (int64_t t = s.steps - 1; t >= 0; --t) {
        const vec g = load(s.dy + t * s.Dp + d), step = load(s.delta + t * s.Dp + d), input = step * load(s.u + t * s.Dp + d);
        const float *b = s.B + t * s.bc_row + first, *c = s.C + t * s.bc_row + first;
        const float *before = w.states + (t * s.N + first) * VL, *after = before + s.N * VL;
        const float* decay = w.decays + (t * s.N + first) * VL;
        float *to_b = w.sum_b + (t * Np + first) * VL, *to_c = w.sum_c + (t * Np + first) * VL;
        vec input_gradient = load(w.input_gradient + t * VL), step_gradient = load(w.step_gradient + t * VL);
        for (int i = 0; i < count; ++i) {
            const vec state_gradient = carried[i] + g * c[i];
            store(to_c + i * VL, load(to_c + i * VL) + g * load(after + i * VL));
            store(to_b + i * VL, load(to_b + i * VL) + state_gradient * input);
            input_gradient += state_gradient * b[i];
            carried[i] = state_gradient * load(decay + i * VL);
            const vec exponent = carried[i] * load(before + i * VL);
            step_gradient += exponent * rate[i];
            rate_gradient[i] += exponent * step;
        }
        store(w.input_gradient + t * VL, input_gradient);
        store(w.step_gradient + t * VL, step_gradient);
    }
    for (int i = 0; i < count; ++i) {
        const int64_t at = (first + i) * s.Dp + d;
        store(s.dh + at, carried[i]);
        store(s.dA + at, load(s.dA + at) + rate_gradient[i]);
    }
}

static void scan_chunk_backward(const ScanGradients& s) {
    const ScanHistory w(s.N, s.work);
    const int64_t Np = padded(s.N);
    std::memset(w.sum_b, 0, sizeof(float) * 2 * kChunk * Np * VL);
    for (int64_t d = 0; d < s.Dp; d += VL) {
        scan_again(s, w, d);
        std::memset(w.input_gradient, 0, sizeof(float) * 2 * kChunk * VL);
        int64_t n = 0;
        for (; n + 4 <= s.N; n += 4) scan_back<4>(s, w, d, n);
        for (; n < s.N; ++n) scan_back<1>(s, w, d, n);
        const vec through = load(s.skip + d);
        vec through_gradient = load(s.dskip + d);
        for (int64_t t = 0; t < s.steps; ++t) {
            const int64_t at = t * s.Dp + d;
            const vec g = load(s.dy + at), x = load(s.u + at), input_gradient = load(w.input_gradient + t * VL);
            store(s.du + at, input_gradient * load(s.delta + at) + g * through);
            store(s.ddelta + at, load(w.step_gradient + t * VL) + input_gradient * x);
            through_gradient += g * x;
        }
        store(s.dskip + d, through_gradient);
    }
    for (int64_t t = 0; t < s.steps; ++t)
        for (int64_t n = 0; n < Np; n += VL)
            for (int which = 0; which < 2; ++which) {
                vec lanes[VL];
                const float* from = (which ? w.sum_c : w.sum_b) + (t * Np + n) * VL;
                for (int i = 0; i < VL; ++i) lanes[i] = load(from + i * VL);
                store((which ? s.dC : s.dB) + t * s.bc_row + n, sum_transposed<VL / 2>(lanes));
            }
}

}  // namespace SEMAMBA_NAMESPACE
