// The residual Mamba block, x + Mamba(RMSNorm(x)), fused: everything between reading x and writing y stays in cache.
//
// Letters as in kernels.h; dp, Dp, Np, Rp: rounded up to whole vectors; P = Rp + 2 Np, a row of (delta rank | B | C).
// Forward keeps only the scan state before every chunk; backward recomputes each chunk from x and that state.
#pragma once

#include <vector>

#include "kernels.h"
#include "rows.h"
#include "scan.h"

namespace SEMAMBA_NAMESPACE {

// Weights of one call, padded with zeros: *_t is (in, out) for `gemm_packed`, the others (out, in) for `gemm`.
struct BlockWeights {
    int64_t d, D, N, R, taps, dp, Dp, Np, Rp, P;
    Arena arena;
    float *norm, *in_t, *z_t, *in, *conv, *conv_bias, *x_t, *x, *dt_t, *dt, *dt_bias, *A, *A2, *skip, *out_t, *out;

    explicit BlockWeights(const BlockArgs& a, bool backward)
        : d(a.d), D(a.D), N(a.N), R(a.R), taps(a.taps), dp(padded(d)), Dp(padded(D)), Np(padded(N)), Rp(padded(R)), P(Rp + 2 * Np),
          arena(dp + dp * 2 * Dp * 2 + (taps + 3) * Dp + P * Dp * 2 + Rp * Dp * 2 + 2 * N * Dp + Dp * dp * 2) {
        auto take = [&](int64_t n) { return arena.take(n); };
        norm = take(dp), in_t = take(dp * Dp), z_t = take(dp * Dp), in = take(2 * Dp * dp), conv = take(taps * Dp), conv_bias = take(Dp);
        x_t = take(Dp * P), x = take(P * Dp), dt_t = take(Rp * Dp), dt = take(Dp * Rp), dt_bias = take(Dp);
        A = take(N * Dp), A2 = take(N * Dp), skip = take(Dp), out_t = take(Dp * dp), out = take(dp * Dp);
        for (int64_t i = 0; i < d; ++i) norm[i] = a.norm ? a.norm[i] : 1.f;
        for (int64_t half = 0; half < 2; ++half)
            for (int64_t i = 0; i < D; ++i)
                for (int64_t k = 0; k < d; ++k) {
                    const float w = a.in_proj[(half * D + i) * d + k];
                    packed_at(half ? z_t : in_t, d, Dp, k, i) = w;
                    if (backward) in[(half * Dp + i) * dp + k] = w;
                }
        for (int64_t i = 0; i < D; ++i) {
            for (int64_t k = 0; k < taps; ++k) conv[k * Dp + i] = a.conv_weight[i * taps + k];
            for (int64_t k = 0; k < R; ++k) packed_at(dt_t, R, Dp, k, i) = dt[i * Rp + k] = a.dt_proj[i * R + k];
            for (int64_t n = 0; n < N; ++n) A2[n * Dp + i] = (A[n * Dp + i] = a.A[i * N + n]) * kLog2E;
            for (int64_t k = 0; k < d; ++k) packed_at(out_t, D, dp, i, k) = out[k * Dp + i] = a.out_proj[k * D + i];
            conv_bias[i] = a.conv_bias[i], dt_bias[i] = a.dt_bias[i], skip[i] = a.skip[i];
        }
        for (int64_t j = 0; j < R + 2 * N; ++j)
            for (int64_t i = 0; i < D; ++i) {
                const int64_t to = j < R ? j : j < R + N ? Rp + j - R : Rp + Np + j - R - N;
                packed_at(x_t, D, P, i, to) = x[to * Dp + i] = a.x_proj[j * D + i];
            }
    }
};

// Local rows of one chunk. The first `taps - 1` rows of `normed` and `conv_in` are the steps before the chunk.
struct BlockBuffers {
    Arena arena;
    float *normed, *inverse, *conv_in, *z, *pre, *u, *row, *raw, *delta, *y, *gated, *out, *state;
    // Backward only.
    float *dout, *dy, *dz, *du, *ddelta, *drow, *dpre, *dconv_in, *dnormed, *dstate, *work;

    static int64_t size(const BlockWeights& w, bool backward) {
        const int64_t T = kChunk, H = w.taps - 1;
        return (T + H) * (w.dp + 1 + w.Dp) + T * (7 * w.Dp + w.P + w.dp) + w.N * w.Dp +
                          (backward ? T * (2 * w.dp + 5 * w.Dp + w.P) + (T + H) * w.Dp + w.N * w.Dp + scan_work(w.N) : 0);
    }
    BlockBuffers(const BlockWeights& w, bool backward) : arena(size(w, backward)) {
        const int64_t T = kChunk, H = w.taps - 1;
        auto take = [&](int64_t n) { return arena.take(n); };
        normed = take((T + H) * w.dp), inverse = take(T + H), conv_in = take((T + H) * w.Dp), z = take(T * w.Dp);
        pre = take(T * w.Dp), u = take(T * w.Dp), row = take(T * w.P), raw = take(T * w.Dp), delta = take(T * w.Dp);
        y = take(T * w.Dp), gated = take(T * w.Dp), out = take(T * w.dp), state = take(w.N * w.Dp);
        if (!backward) return;
        dout = take(T * w.dp), dy = take(T * w.Dp), dz = take(T * w.Dp), du = take(T * w.Dp), ddelta = take(T * w.Dp);
        drow = take(T * w.P), dpre = take((T + H) * w.Dp), dconv_in = take(T * w.Dp), dnormed = take(T * w.dp);
        dstate = take(w.N * w.Dp), work = take(scan_work(w.N));
    }
};

// Where step t of a sequence lies in x (outer, L, inner, d).
struct Sequence {
    int64_t first, step;
    Sequence(const BlockArgs& a, int64_t index) {
        const int64_t o = index / a.inner, i = index % a.inner;
        first = ((o * a.length + (a.reverse ? a.length - 1 : 0)) * a.inner + i) * a.d;
        step = (a.reverse ? -1 : 1) * a.inner * a.d;
    }
    int64_t at(int64_t t) const { return first + t * step; }
};

// RMSNorm of x into `count` rows from local row `to`, and the convolution's input from them.
static void load_rows(const BlockArgs& a, const BlockWeights& w, BlockBuffers& b, const Sequence& s, int64_t t0, int64_t count,
                      int64_t to) {
    for (int64_t t = 0; t < count; ++t) {
        const float* from = a.x + s.at(t0 + t);
        float* row = b.normed + (to + t) * w.dp;
        if (a.norm) b.inverse[to + t] = normalise(from, w.norm, w.d, static_cast<float>(a.eps), row);
        else std::memcpy(row, from, sizeof(float) * w.d);
    }
    gemm_packed(count, w.Dp, w.d, b.normed + to * w.dp, w.dp, 1, w.in_t, b.conv_in + to * w.Dp, w.Dp, false);
}

// Steps [t0, t0 + steps) up to what the scan reads.
static void scan_inputs(const BlockArgs& a, const BlockWeights& w, BlockBuffers& b, const Sequence& s, int64_t t0, int64_t steps) {
    const int64_t H = w.taps - 1, Dp = w.Dp;
    load_rows(a, w, b, s, t0, steps, H);
    gemm_packed(steps, Dp, w.d, b.normed + H * w.dp, w.dp, 1, w.z_t, b.z, Dp, false);
    for (int64_t t = 0; t < steps; ++t)
        for (int64_t i = 0; i < Dp; i += VL) {
            vec v = load(w.conv_bias + i);
            for (int64_t k = 0; k < w.taps; ++k) v += load(w.conv + k * Dp + i) * load(b.conv_in + (t + k) * Dp + i);
            store(b.pre + t * Dp + i, v);
            store(b.u + t * Dp + i, v * sigmoid(v));
        }
    gemm_packed(steps, w.P, w.D, b.u, Dp, 1, w.x_t, b.row, w.P, false);
    gemm_packed(steps, Dp, w.R, b.row, w.P, 1, w.dt_t, b.raw, Dp, false);
    for (int64_t t = 0; t < steps; ++t)
        for (int64_t i = 0; i < Dp; i += VL) {
            const vec v = load(b.raw + t * Dp + i) + load(w.dt_bias + i);
            store(b.raw + t * Dp + i, v);
            store(b.delta + t * Dp + i, softplus(v));
        }
}

// Steps [t0, t0 + steps) up to the gated scan output; b.state is carried on.
static void forward_chunk(const BlockArgs& a, const BlockWeights& w, BlockBuffers& b, const Sequence& s, int64_t t0, int64_t steps) {
    scan_inputs(a, w, b, s, t0, steps);
    scan_chunk_any(steps, w.Dp, w.N, b.u, b.delta, w.A2, b.row + w.Rp, b.row + w.Rp + w.Np, w.P, w.skip, b.state, b.y);
    for (int64_t i = 0; i < steps * w.Dp; i += VL) {
        const vec z = load(b.z + i);
        store(b.gated + i, load(b.y + i) * z * sigmoid(z));
    }
}

static void block_forward(const BlockArgs& a, int64_t begin, int64_t end) {
    const BlockWeights w(a, false);
    BlockBuffers b(w, false);
    const int64_t H = w.taps - 1, chunks = (a.length + kChunk - 1) / kChunk;
    for (int64_t index = begin; index < end; ++index) {
        const Sequence s(a, index);
        std::memset(b.conv_in, 0, sizeof(float) * H * w.Dp);
        std::memset(b.state, 0, sizeof(float) * w.N * w.Dp);
        if (a.conv_state)
            for (int64_t k = 0; k < H; ++k) std::memcpy(b.conv_in + k * w.Dp, a.conv_state + (index * H + k) * w.D, sizeof(float) * w.D);
        if (a.scan_state)
            for (int64_t i = 0; i < w.D; ++i)
                for (int64_t n = 0; n < w.N; ++n) b.state[n * w.Dp + i] = a.scan_state[(index * w.D + i) * w.N + n];
        for (int64_t c = 0; c < chunks; ++c) {
            const int64_t t0 = c * kChunk, steps = a.length - t0 < kChunk ? a.length - t0 : kChunk;
            if (a.checkpoints)
                std::memcpy(a.checkpoints + (index * chunks + c) * w.N * w.Dp, b.state, sizeof(float) * w.N * w.Dp);
            forward_chunk(a, w, b, s, t0, steps);
            gemm_packed(steps, w.dp, w.D, b.gated, w.Dp, 1, w.out_t, b.out, w.dp, false);
            for (int64_t t = 0; t < steps; ++t) {
                const float *base = a.base ? a.base + s.at(t0 + t) : nullptr, *from = b.out + t * w.dp;
                float* to = a.y + s.at(t0 + t);
                for (int64_t i = 0; i < w.d; ++i) to[i] = base ? base[i] + from[i] : from[i];
            }
            std::memmove(b.conv_in, b.conv_in + steps * w.Dp, sizeof(float) * H * w.Dp);
        }
        if (a.final_conv)
            for (int64_t k = 0; k < H; ++k) std::memcpy(a.final_conv + (index * H + k) * w.D, b.conv_in + k * w.Dp, sizeof(float) * w.D);
        if (a.final_scan)
            for (int64_t i = 0; i < w.D; ++i)
                for (int64_t n = 0; n < w.N; ++n) a.final_scan[(index * w.D + i) * w.N + n] = b.state[n * w.Dp + i];
    }
}

// Gradients of the parameters, padded as BlockWeights; one per thread.
struct BlockSums {
    float *norm, *in, *conv, *conv_bias, *x, *dt, *dt_bias, *A, *skip, *out;
    int64_t size;
    BlockSums(const BlockArgs& a, float* memory) {
        const int64_t dp = padded(a.d), Dp = padded(a.D), Np = padded(a.N), Rp = padded(a.R), P = Rp + 2 * Np;
        float* next = memory;
        auto take = [&](int64_t n) { float* p = next; next += n; return p; };
        norm = take(dp), in = take(2 * Dp * dp), conv = take(a.taps * Dp), conv_bias = take(Dp), x = take(P * Dp), dt = take(Dp * Rp);
        dt_bias = take(Dp), A = take(a.N * Dp), skip = take(Dp), out = take(dp * Dp);
        size = next - memory;
    }
};

static int64_t block_sums(const BlockArgs& a) { return BlockSums(a, nullptr).size; }

// From the gradient of the block's output rows to those of the convolution's output `dpre` rows and of z.
static void backward_scan(const BlockWeights& w, BlockBuffers& b, const BlockSums& g, int64_t steps, const float* h0) {
    const int64_t Dp = w.Dp, dp = w.dp;
    gemm(steps, Dp, w.d, b.dout, dp, 1, w.out, Dp, b.dy, Dp, false);
    float *dB = b.drow + w.Rp, *dC = dB + w.Np;
    scan_chunk_backward({steps, Dp, w.N, w.P, b.u, b.delta, w.A, w.A2, b.row + w.Rp, b.row + w.Rp + w.Np, w.skip, h0, b.z, b.dy, b.gated,
                         b.dz, b.dstate, b.du, b.ddelta, dB, dC, g.A, g.skip, b.work});
    gemm(w.d, Dp, steps, b.dout, 1, dp, b.gated, Dp, g.out, Dp, true);
    for (int64_t i = 0; i < steps * Dp; i += VL) store(b.ddelta + i, load(b.ddelta + i) * sigmoid(load(b.raw + i)));
    add_rows(g.dt_bias, b.ddelta, steps, Dp);
    gemm(steps, w.Rp, w.D, b.ddelta, Dp, 1, w.dt, w.Rp, b.drow, w.P, false);
    gemm(w.D, w.Rp, steps, b.ddelta, 1, Dp, b.row, w.P, g.dt, w.Rp, true);
    gemm(steps, Dp, w.P, b.drow, w.P, 1, w.x, Dp, b.du, Dp, true);
    gemm(w.P, Dp, steps, b.drow, 1, w.P, b.u, Dp, g.x, Dp, true);
    for (int64_t i = 0; i < steps * Dp; i += VL) {
        const vec v = load(b.pre + i), gate = sigmoid(v);
        store(b.dpre + i, load(b.du + i) * gate * (all(1.f) + v * (all(1.f) - gate)));
    }
    add_rows(g.conv_bias, b.dpre, steps, Dp);
}

// From `dpre` (with the rows of the following chunk behind) to the gradient of x.
static void backward_input(const BlockArgs& a, const BlockWeights& w, BlockBuffers& b, const BlockSums& g, const Sequence& s,
                           int64_t t0, int64_t steps) {
    const int64_t Dp = w.Dp, dp = w.dp, H = w.taps - 1;
    for (int64_t i = 0; i < Dp; i += VL)
        for (int64_t k = 0; k < w.taps; ++k) {
            vec total = load(g.conv + k * Dp + i);
            for (int64_t t = 0; t < steps; ++t) total += load(b.dpre + t * Dp + i) * load(b.conv_in + (t + k) * Dp + i);
            store(g.conv + k * Dp + i, total);
        }
    for (int64_t t = 0; t < steps; ++t)
        for (int64_t i = 0; i < Dp; i += VL) {
            vec total{};
            for (int64_t k = 0; k < w.taps; ++k) total += load(w.conv + k * Dp + i) * load(b.dpre + (t + H - k) * Dp + i);
            store(b.dconv_in + t * Dp + i, total);
        }
    const float* normed = b.normed + H * dp;
    gemm(steps, dp, w.D, b.dconv_in, Dp, 1, w.in, dp, b.dnormed, dp, false);
    gemm(steps, dp, w.D, b.dz, Dp, 1, w.in + Dp * dp, dp, b.dnormed, dp, true);
    gemm(w.D, dp, steps, b.dconv_in, 1, Dp, normed, dp, g.in, dp, true);
    gemm(w.D, dp, steps, b.dz, 1, Dp, normed, dp, g.in + Dp * dp, dp, true);
    for (int64_t t = 0; t < steps; ++t) {
        const float *row = b.dnormed + t * dp, *through = a.residual ? b.dout + t * dp : nullptr;
        float* to = a.dx + s.at(t0 + t);
        if (a.norm)
            normalise_backward(a.x + s.at(t0 + t), w.norm, w.d, b.inverse[H + t], row, through, g.norm, b.out, to);
        else
            for (int64_t i = 0; i < w.d; ++i) to[i] = through ? through[i] + row[i] : row[i];
    }
}

static void block_backward(const BlockArgs& a, int64_t begin, int64_t end, float* sums) {
    const BlockWeights w(a, true);
    BlockBuffers b(w, true);
    const BlockSums g(a, sums);
    const int64_t H = w.taps - 1, chunks = (a.length + kChunk - 1) / kChunk;
    for (int64_t index = begin; index < end; ++index) {
        const Sequence s(a, index);
        std::memset(b.dstate, 0, sizeof(float) * w.N * w.Dp);
        std::memset(b.dpre, 0, sizeof(float) * (kChunk + H) * w.Dp);
        for (int64_t c = chunks - 1; c >= 0; --c) {
            const int64_t t0 = c * kChunk, steps = a.length - t0 < kChunk ? a.length - t0 : kChunk;
            const float* h0 = a.checkpoints + (index * chunks + c) * w.N * w.Dp;
            std::memset(b.conv_in, 0, sizeof(float) * H * w.Dp);
            const int64_t past = t0 < H ? t0 : H;
            if (past) load_rows(a, w, b, s, t0 - past, past, H - past);
            scan_inputs(a, w, b, s, t0, steps);
            // Rows [steps, steps + H) must hold the first rows of the chunk that follows, found in rows [0, H) so far.
            std::memmove(b.dpre + steps * w.Dp, b.dpre, sizeof(float) * H * w.Dp);
            for (int64_t t = 0; t < steps; ++t) std::memcpy(b.dout + t * w.dp, a.dy + s.at(t0 + t), sizeof(float) * w.d);
            backward_scan(w, b, g, steps, h0);
            backward_input(a, w, b, g, s, t0, steps);
        }
    }
}

static void block_finish(const BlockArgs& a, const float* sums) {
    const BlockSums g(a, const_cast<float*>(sums));
    const int64_t d = a.d, D = a.D, N = a.N, R = a.R, dp = padded(d), Dp = padded(D), Np = padded(N), Rp = padded(R);
    for (int64_t k = 0; a.norm && k < d; ++k) a.dnorm[k] = g.norm[k];
    for (int64_t half = 0; half < 2; ++half)
        for (int64_t i = 0; i < D; ++i) std::memcpy(a.din_proj + (half * D + i) * d, g.in + (half * Dp + i) * dp, sizeof(float) * d);
    for (int64_t i = 0; i < D; ++i) {
        for (int64_t k = 0; k < a.taps; ++k) a.dconv_weight[i * a.taps + k] = g.conv[k * Dp + i];
        for (int64_t k = 0; k < R; ++k) a.ddt_proj[i * R + k] = g.dt[i * Rp + k];
        for (int64_t n = 0; n < N; ++n) a.dA[i * N + n] = g.A[n * Dp + i];
        for (int64_t k = 0; k < d; ++k) a.dout_proj[k * D + i] = g.out[k * Dp + i];
        a.dconv_bias[i] = g.conv_bias[i], a.ddt_bias[i] = g.dt_bias[i], a.dskip[i] = g.skip[i];
    }
    for (int64_t j = 0; j < R + 2 * N; ++j) {
        const int64_t from = j < R ? j : j < R + N ? Rp + j - R : Rp + Np + j - R - N;
        std::memcpy(a.dx_proj + j * D, g.x + from * Dp, sizeof(float) * D);
    }
}

}  // namespace SEMAMBA_NAMESPACE
