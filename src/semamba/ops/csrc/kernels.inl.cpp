// One instruction set's kernels; compiled once for each with SEMAMBA_NAMESPACE set. Here: the scan over whole sequences.
#include "kernels.h"

#include "block.h"
#include "dense.h"
#include "frequency.h"
#include "line.h"
#include "norm.h"
#include "scan.h"

namespace SEMAMBA_NAMESPACE {

// A, A2 = A log2(e), skip and delta's bias, padded.
struct ScanWeights {
    int64_t Dp, Np;
    Arena arena;
    float *A, *A2, *skip, *bias;
    explicit ScanWeights(const ScanArgs& a) : Dp(padded(a.D)), Np(padded(a.N)), arena((2 * a.N + 2) * Dp) {
        A = arena.take((2 * a.N + 2) * Dp), A2 = A + a.N * Dp, skip = A2 + a.N * Dp, bias = skip + Dp;
        for (int64_t i = 0; i < a.D; ++i) {
            for (int64_t n = 0; n < a.N; ++n) A2[n * Dp + i] = (A[n * Dp + i] = a.A[i * a.N + n]) * kLog2E;
            if (a.skip) skip[i] = a.skip[i];
            if (a.delta_bias) bias[i] = a.delta_bias[i];
        }
    }
};

struct ScanBuffers {
    Arena arena;
    float *u, *raw, *delta, *z, *bc, *y, *state, *dy, *dz, *du, *ddelta, *dbc, *dstate, *work;
    static int64_t size(int64_t Dp, int64_t Np, int64_t N, bool backward) {
        const int64_t T = kChunk;
        return T * (5 * Dp + 2 * Np) + N * Dp + (backward ? T * (4 * Dp + 2 * Np) + N * Dp + scan_work(N) : 0);
    }
    ScanBuffers(const ScanArgs& a, bool backward) : arena(size(padded(a.D), padded(a.N), a.N, backward)) {
        const int64_t Dp = padded(a.D), Np = padded(a.N), T = kChunk;
        auto take = [&](int64_t n) { return arena.take(n); };
        u = take(T * Dp), raw = take(T * Dp), delta = take(T * Dp), z = take(T * Dp), y = take(T * Dp);
        bc = take(T * 2 * Np), state = take(a.N * Dp);
        if (!backward) return;
        dy = take(T * Dp), dz = take(T * Dp), du = take(T * Dp), ddelta = take(T * Dp), dbc = take(T * 2 * Np);
        dstate = take(a.N * Dp), work = take(scan_work(a.N));
    }
};

static void load_state(const ScanArgs& a, const float* from, int64_t index, float* to) {
    const int64_t Dp = padded(a.D);
    std::memset(to, 0, sizeof(float) * a.N * Dp);
    for (int64_t i = 0; from && i < a.D; ++i)
        for (int64_t n = 0; n < a.N; ++n) to[n * Dp + i] = from[(index * a.D + i) * a.N + n];
}

static void store_state(const ScanArgs& a, const float* from, int64_t index, float* to) {
    const int64_t Dp = padded(a.D);
    for (int64_t i = 0; to && i < a.D; ++i)
        for (int64_t n = 0; n < a.N; ++n) to[(index * a.D + i) * a.N + n] = from[n * Dp + i];
}

static void load_chunk(const ScanArgs& a, const ScanWeights& w, ScanBuffers& b, int64_t index, int64_t t0, int64_t steps) {
    for (int64_t t = 0; t < steps; ++t) {
        const int64_t at = a.reverse ? a.length - 1 - t0 - t : t0 + t;
        std::memcpy(b.u + t * w.Dp, a.u + index * a.u_batch + at * a.u_step, sizeof(float) * a.D);
        std::memcpy(b.raw + t * w.Dp, a.delta + index * a.delta_batch + at * a.delta_step, sizeof(float) * a.D);
        if (a.z) std::memcpy(b.z + t * w.Dp, a.z + index * a.z_batch + at * a.z_step, sizeof(float) * a.D);
        std::memcpy(b.bc + t * 2 * w.Np, a.B + index * a.B_batch + at * a.B_step, sizeof(float) * a.N);
        std::memcpy(b.bc + t * 2 * w.Np + w.Np, a.C + index * a.C_batch + at * a.C_step, sizeof(float) * a.N);
        for (int64_t i = 0; i < w.Dp; i += VL) {
            const vec v = load(b.raw + t * w.Dp + i) + load(w.bias + i);
            store(b.raw + t * w.Dp + i, v);
            store(b.delta + t * w.Dp + i, a.softplus ? softplus(v) : v);
        }
    }
}

// What `load_chunk` will read from step t0 on, or from the next sequence; nothing where a row is not as long as all others.
static Ahead rows_ahead(const ScanArgs& a, int64_t index, int64_t t0) {
    if (t0 >= a.length) ++index, t0 = 0;
    Ahead ahead;
    if (index >= a.batch || a.length - t0 < kChunk) return ahead;
    const int64_t first = a.reverse ? a.length - 1 - t0 : t0, sign = a.reverse ? -1 : 1;
    auto add = [&](const float* tensor, int64_t batch, int64_t step) {
        if (!tensor) return;
        ahead.rows[ahead.count] = tensor + index * batch + first * step;
        ahead.step[ahead.count++] = sign * step;
    };
    add(a.u, a.u_batch, a.u_step), add(a.delta, a.delta_batch, a.delta_step), add(a.z, a.z_batch, a.z_step);
    return ahead;
}

static void scan_forward(const ScanArgs& a, int64_t begin, int64_t end) {
    const ScanWeights w(a);
    ScanBuffers b(a, false);
    const int64_t chunks = (a.length + kChunk - 1) / kChunk;
    for (int64_t index = begin; index < end; ++index) {
        load_state(a, a.initial_state, index, b.state);
        for (int64_t c = 0; c < chunks; ++c) {
            const int64_t t0 = c * kChunk, steps = a.length - t0 < kChunk ? a.length - t0 : kChunk;
            if (a.checkpoints)
                std::memcpy(a.checkpoints + (index * chunks + c) * a.N * w.Dp, b.state, sizeof(float) * a.N * w.Dp);
            load_chunk(a, w, b, index, t0, steps);
            scan_chunk_any(steps, w.Dp, a.N, b.u, b.delta, w.A2, b.bc, b.bc + w.Np, 2 * w.Np, w.skip, b.state, b.y,
                           rows_ahead(a, index, t0 + steps));
            for (int64_t i = 0; a.z && i < steps * w.Dp; i += VL) {
                const vec z = load(b.z + i);
                store(b.y + i, load(b.y + i) * z * sigmoid(z));
            }
            for (int64_t t = 0; t < steps; ++t) {
                const int64_t at = a.reverse ? a.length - 1 - t0 - t : t0 + t;
                std::memcpy(a.y + (index * a.length + at) * a.D, b.y + t * w.Dp, sizeof(float) * a.D);
            }
        }
        store_state(a, b.state, index, a.final_state);
    }
}

static int64_t scan_sums(const ScanArgs& a) { return (a.N + 2) * padded(a.D); }

static void scan_backward(const ScanArgs& a, int64_t begin, int64_t end, float* sums) {
    const ScanWeights w(a);
    ScanBuffers b(a, true);
    const int64_t Dp = w.Dp, Np = w.Np, chunks = (a.length + kChunk - 1) / kChunk;
    float *dA = sums, *dskip = dA + a.N * Dp, *dbias = dskip + Dp;
    for (int64_t index = begin; index < end; ++index) {
        load_state(a, a.dfinal_state, index, b.dstate);
        for (int64_t c = chunks - 1; c >= 0; --c) {
            const int64_t t0 = c * kChunk, steps = a.length - t0 < kChunk ? a.length - t0 : kChunk;
            const float* h0 = a.checkpoints + (index * chunks + c) * a.N * Dp;
            load_chunk(a, w, b, index, t0, steps);
            for (int64_t t = 0; t < steps; ++t) {
                const int64_t at = a.reverse ? a.length - 1 - t0 - t : t0 + t;
                std::memcpy(b.dy + t * Dp, a.dy + (index * a.length + at) * a.D, sizeof(float) * a.D);
            }
            scan_chunk_backward({steps, Dp, a.N, 2 * Np, b.u, b.delta, w.A, w.A2, b.bc, b.bc + Np, w.skip, h0, a.z ? b.z : nullptr, b.dy,
                                 nullptr, b.dz, b.dstate, b.du, b.ddelta, b.dbc, b.dbc + Np, dA, dskip, b.work});
            for (int64_t t = 0; t < steps; ++t) {
                for (int64_t i = 0; i < Dp; i += VL) {
                    vec g = load(b.ddelta + t * Dp + i);
                    if (a.softplus) g *= sigmoid(load(b.raw + t * Dp + i));
                    store(b.ddelta + t * Dp + i, g);
                    store(dbias + i, load(dbias + i) + g);
                }
                const int64_t row = index * a.length + (a.reverse ? a.length - 1 - t0 - t : t0 + t);
                std::memcpy(a.du + row * a.D, b.du + t * Dp, sizeof(float) * a.D);
                std::memcpy(a.ddelta + row * a.D, b.ddelta + t * Dp, sizeof(float) * a.D);
                if (a.z) std::memcpy(a.dz + row * a.D, b.dz + t * Dp, sizeof(float) * a.D);
                std::memcpy(a.dB + row * a.N, b.dbc + t * 2 * Np, sizeof(float) * a.N);
                std::memcpy(a.dC + row * a.N, b.dbc + t * 2 * Np + Np, sizeof(float) * a.N);
            }
        }
        store_state(a, b.dstate, index, a.dinitial_state);
    }
}

static void scan_finish(const ScanArgs& a, const float* sums) {
    const int64_t Dp = padded(a.D);
    for (int64_t i = 0; i < a.D; ++i) {
        for (int64_t n = 0; n < a.N; ++n) a.dA[i * a.N + n] = sums[n * Dp + i];
        if (a.dskip) a.dskip[i] = sums[a.N * Dp + i];
        if (a.ddelta_bias) a.ddelta_bias[i] = sums[(a.N + 1) * Dp + i];
    }
}

extern const Kernels kernels;
const Kernels kernels = {
#if defined(__AVX512F__)
    "avx512",
#elif defined(__AVX2__)
    "avx2",
#else
    "portable",
#endif
    VL, scan_sums, scan_forward, scan_backward, scan_finish, block_sums, block_forward, block_backward, block_finish,
    conv_sums, conv_forward, conv_backward, conv_finish,
    attention_sums, attention_forward, attention_backward, attention_finish,
    norm_statistics, norm_combine, norm_apply, norm_gradient_sums, norm_gradient_combine, norm_gradient_apply,
    dense_weights_size, dense_weights, dense_forward, line_forward};

}  // namespace SEMAMBA_NAMESPACE
