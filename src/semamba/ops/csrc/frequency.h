// Residual layers along frequency, fused row by row (a row is one frame of one item): everything but x and y stays in L1.
//
//   convolution:  x + W * silu(norm(x)) + b, three taps, zero padding at both ends
//   attention:    x + W_o attend(W_qkv norm(x) + b_qkv) + b_o across the S positions of the row, H heads
//
// Letters: S positions, C channels, H heads, K = C / H; Cp, Sp, Kp: rounded up to whole vectors. Backward recomputes the row.
#pragma once

#include <cmath>

#include "kernels.h"
#include "rows.h"

namespace SEMAMBA_NAMESPACE {

// ----------------------------------------------------------------------------------------------------------- convolution

static int64_t conv_sums(const FrequencyArgs& a) { return padded(a.C) * (2 + 3 * a.C); }

struct ConvLayer {
    int64_t S, C, Cp;
    Arena arena;
    float *norm, *bias, *weight_t, *weight, *active, *inner, *out, *inverse, *dout, *dactive, *scratch;
    explicit ConvLayer(const FrequencyArgs& a)
        : S(a.S), C(a.C), Cp(padded(a.C)), arena(Cp * (3 + 6 * Cp) + (S + 2) * Cp * 5 + S) {
        norm = arena.take(Cp), bias = arena.take(Cp), weight_t = arena.take(3 * Cp * Cp), weight = arena.take(3 * Cp * Cp);
        active = arena.take((S + 2) * Cp), inner = arena.take(S * Cp), out = arena.take(S * Cp), inverse = arena.take(S);
        dout = arena.take(S * Cp), dactive = arena.take((S + 2) * Cp), scratch = arena.take(Cp);
        std::memcpy(norm, a.norm, sizeof(float) * C);
        std::memcpy(bias, a.bias, sizeof(float) * C);
        for (int64_t o = 0; o < C; ++o)
            for (int64_t tap = 0; tap < 3; ++tap)
                for (int64_t c = 0; c < C; ++c) {
                    const float w = a.weight[(o * 3 + tap) * C + c];
                    weight_t[(tap * Cp + c) * Cp + o] = weight[o * 3 * Cp + tap * Cp + c] = w;
                }
    }
    // Fills `inner` with norm(x) and rows 1 .. S of `active` with its silu; the rows around them are zero.
    void activate(const float* x, float eps) {
        for (int64_t s = 0; s < S; ++s) {
            inverse[s] = normalise(x + s * C, norm, C, eps, inner + s * Cp);
            for (int64_t i = 0; i < Cp; i += VL) {
                const vec v = load(inner + s * Cp + i);
                store(active + (s + 1) * Cp + i, v * sigmoid(v));
            }
        }
    }
};

static void conv_forward(const FrequencyArgs& a, int64_t begin, int64_t end) {
    ConvLayer l(a);
    for (int64_t r = begin; r < end; ++r) {
        const float* x = a.x + r * l.S * l.C;
        float* y = a.y + r * l.S * l.C;
        l.activate(x, static_cast<float>(a.eps));
        for (int64_t s = 0; s < l.S; ++s) std::memcpy(l.out + s * l.Cp, l.bias, sizeof(float) * l.Cp);
        // Rows of `active` overlap: position s reads rows s, s + 1, s + 2 as one run of 3 Cp numbers.
        gemm(l.S, l.Cp, 3 * l.Cp, l.active, l.Cp, 1, l.weight_t, l.Cp, l.out, l.Cp, true);
        for (int64_t s = 0; s < l.S; ++s)
            for (int64_t c = 0; c < l.C; ++c) y[s * l.C + c] = x[s * l.C + c] + l.out[s * l.Cp + c];
    }
}

static void conv_backward(const FrequencyArgs& a, int64_t begin, int64_t end, float* sums) {
    ConvLayer l(a);
    const int64_t S = l.S, C = l.C, Cp = l.Cp;
    float *dnorm = sums, *dbias = dnorm + Cp, *dweight = dbias + Cp;  // dweight (C, 3 Cp)
    for (int64_t r = begin; r < end; ++r) {
        const float *x = a.x + r * S * C, *dy = a.dy + r * S * C;
        l.activate(x, static_cast<float>(a.eps));
        for (int64_t s = 0; s < S; ++s) std::memcpy(l.dout + s * Cp, dy + s * C, sizeof(float) * C);
        add_rows(dbias, l.dout, S, Cp);
        gemm(C, 3 * Cp, S, l.dout, 1, Cp, l.active, Cp, dweight, 3 * Cp, true);
        std::memset(l.dactive, 0, sizeof(float) * (S + 2) * Cp);
        for (int64_t tap = 0; tap < 3; ++tap)
            gemm(S, Cp, C, l.dout, Cp, 1, l.weight + tap * Cp, 3 * Cp, l.dactive + tap * Cp, Cp, true);
        for (int64_t s = 0; s < S; ++s) {
            float* gradient = l.dactive + (s + 1) * Cp;
            for (int64_t i = 0; i < Cp; i += VL) {
                const vec v = load(l.inner + s * Cp + i), gate = sigmoid(v);
                store(gradient + i, load(gradient + i) * gate * (all(1.f) + v * (all(1.f) - gate)));
            }
            normalise_backward(x + s * C, l.norm, C, l.inverse[s], gradient, dy + s * C, dnorm, l.scratch, a.dx + r * S * C + s * C);
        }
    }
}

static void conv_finish(const FrequencyArgs& a, const float* sums) {
    const int64_t C = a.C, Cp = padded(C);
    const float *dbias = sums + Cp, *dweight = dbias + Cp;
    std::memcpy(a.dnorm, sums, sizeof(float) * C);
    std::memcpy(a.dbias, dbias, sizeof(float) * C);
    for (int64_t o = 0; o < C; ++o)
        for (int64_t tap = 0; tap < 3; ++tap)
            std::memcpy(a.dweight + (o * 3 + tap) * C, dweight + o * 3 * Cp + tap * Cp, sizeof(float) * C);
}

// ------------------------------------------------------------------------------------------------------------- attention

// W_qkv (3 C, C) with rows q | k | v; each third is padded to Cp columns of the local (S, 3 Cp) matrix.
static int64_t attention_sums(const FrequencyArgs& a) {
    const int64_t Cp = padded(a.C);
    return Cp + 3 * Cp + 3 * Cp * Cp + Cp + Cp * Cp;
}

struct AttentionLayer {
    int64_t S, C, H, K, Cp, Sp, Kp;
    float scale;
    Arena arena;
    float *norm, *qkv_bias, *out_bias, *qkv_t, *qkv, *out_t, *out;
    float *inner, *inverse, *rows, *prob, *mixed, *result, *keys, *values, *packed;
    float *dout, *dmixed, *drows, *dscores, *dpacked, *dinner, *scratch;
    explicit AttentionLayer(const FrequencyArgs& a)
        : S(a.S), C(a.C), H(a.heads), K(C / H), Cp(padded(C)), Sp(padded(S)), Kp(padded(K)), scale(1.f / std::sqrt(static_cast<float>(K))),
          arena(6 * Cp + 8 * Cp * Cp + S * (5 * Cp + 6 * Cp + 1) + H * S * Sp + S * Sp + 2 * K * Sp + 4 * S * Kp + VL) {
        norm = arena.take(Cp), qkv_bias = arena.take(3 * Cp), out_bias = arena.take(Cp), scratch = arena.take(Cp);
        qkv_t = arena.take(Cp * 3 * Cp), qkv = arena.take(3 * Cp * Cp), out_t = arena.take(Cp * Cp), out = arena.take(Cp * Cp);
        inner = arena.take(S * Cp), inverse = arena.take(S), rows = arena.take(S * 3 * Cp), prob = arena.take(H * S * Sp);
        mixed = arena.take(S * Cp), result = arena.take(S * Cp), keys = arena.take(K * Sp), values = arena.take(S * Kp);
        packed = arena.take(S * Kp), dout = arena.take(S * Cp), dmixed = arena.take(S * Cp), drows = arena.take(S * 3 * Cp);
        dscores = arena.take(S * Sp), dpacked = arena.take(S * Kp), dinner = result;
        std::memcpy(norm, a.norm, sizeof(float) * C);
        std::memcpy(out_bias, a.out_bias, sizeof(float) * C);
        for (int64_t o = 0; o < C; ++o) {
            for (int64_t c = 0; c < C; ++c) out_t[c * Cp + o] = out[o * Cp + c] = a.out_weight[o * C + c];
            for (int64_t part = 0; part < 3; ++part) {
                qkv_bias[part * Cp + o] = a.bias[part * C + o];
                for (int64_t c = 0; c < C; ++c)
                    qkv_t[c * 3 * Cp + part * Cp + o] = qkv[(part * Cp + o) * Cp + c] = a.weight[(part * C + o) * C + c];
            }
        }
    }
    // Columns [from, from + K) of a (S, ld) matrix, as (K, Sp) and as (S, Kp).
    void transpose(const float* matrix, int64_t ld, int64_t from, float* to) const {
        for (int64_t s = 0; s < S; ++s)
            for (int64_t k = 0; k < K; ++k) to[k * Sp + s] = matrix[s * ld + from + k];
    }
    void pack(const float* matrix, int64_t ld, int64_t from, float* to) const {
        for (int64_t s = 0; s < S; ++s) std::memcpy(to + s * Kp, matrix + s * ld + from, sizeof(float) * K);
    }
    void unpack(const float* from, float* matrix, int64_t ld, int64_t to, float factor) const {
        for (int64_t s = 0; s < S; ++s)
            for (int64_t k = 0; k < K; ++k) matrix[s * ld + to + k] = from[s * Kp + k] * factor;
    }
    void softmax(float* row) const {
        float largest = row[0] * scale;
        for (int64_t s = 1; s < S; ++s) largest = row[s] * scale > largest ? row[s] * scale : largest;
        vec total{};
        for (int64_t i = 0; i < Sp; i += VL) {
            vec e = exp(load(row + i) * scale - largest);
            for (int64_t lane = S - i; lane < VL; ++lane) e[lane < 0 ? 0 : lane] = 0.f;
            store(row + i, e);
            total += e;
        }
        const float inverse = 1.f / sum(total);
        for (int64_t i = 0; i < Sp; i += VL) store(row + i, load(row + i) * inverse);
    }
    // Norm, projections, probabilities of every head and the mixed values (S, Cp).
    void attend(const float* x, float eps) {
        for (int64_t s = 0; s < S; ++s) {
            inverse[s] = normalise(x + s * C, norm, C, eps, inner + s * Cp);
            std::memcpy(rows + s * 3 * Cp, qkv_bias, sizeof(float) * 3 * Cp);
        }
        gemm(S, 3 * Cp, C, inner, Cp, 1, qkv_t, 3 * Cp, rows, 3 * Cp, true);
        for (int64_t h = 0; h < H; ++h) {
            float* p = prob + h * S * Sp;
            transpose(rows, 3 * Cp, Cp + h * K, keys);
            gemm(S, Sp, K, rows + h * K, 3 * Cp, 1, keys, Sp, p, Sp, false);
            for (int64_t s = 0; s < S; ++s) softmax(p + s * Sp);
            pack(rows, 3 * Cp, 2 * Cp + h * K, values);
            gemm(S, Kp, S, p, Sp, 1, values, Kp, packed, Kp, false);
            unpack(packed, mixed, Cp, h * K, 1.f);
        }
    }
};

static void attention_forward(const FrequencyArgs& a, int64_t begin, int64_t end) {
    AttentionLayer l(a);
    for (int64_t r = begin; r < end; ++r) {
        const float* x = a.x + r * l.S * l.C;
        float* y = a.y + r * l.S * l.C;
        l.attend(x, static_cast<float>(a.eps));
        for (int64_t s = 0; s < l.S; ++s) std::memcpy(l.result + s * l.Cp, l.out_bias, sizeof(float) * l.Cp);
        gemm(l.S, l.Cp, l.C, l.mixed, l.Cp, 1, l.out_t, l.Cp, l.result, l.Cp, true);
        for (int64_t s = 0; s < l.S; ++s)
            for (int64_t c = 0; c < l.C; ++c) y[s * l.C + c] = x[s * l.C + c] + l.result[s * l.Cp + c];
    }
}

// One head: from the gradient of its mixed values to those of its q, k, v columns in `drows`.
static void attention_head_backward(AttentionLayer& l, int64_t h) {
    const int64_t S = l.S, K = l.K, Cp = l.Cp, Sp = l.Sp, Kp = l.Kp;
    const float* p = l.prob + h * S * Sp;
    l.pack(l.dmixed, Cp, h * K, l.packed);
    gemm(S, Kp, S, p, 1, Sp, l.packed, Kp, l.dpacked, Kp, false);  // P^T dO
    l.unpack(l.dpacked, l.drows, 3 * Cp, 2 * Cp + h * K, 1.f);
    l.transpose(l.rows, 3 * Cp, 2 * Cp + h * K, l.keys);
    gemm(S, Sp, K, l.dmixed + h * K, Cp, 1, l.keys, Sp, l.dscores, Sp, false);  // dO V^T
    for (int64_t s = 0; s < S; ++s) {  // through the softmax; the padding of P is zero
        vec dot{};
        for (int64_t i = 0; i < Sp; i += VL) dot += load(l.dscores + s * Sp + i) * load(p + s * Sp + i);
        const float total = sum(dot);
        for (int64_t i = 0; i < Sp; i += VL)
            store(l.dscores + s * Sp + i, (load(l.dscores + s * Sp + i) - total) * load(p + s * Sp + i));
    }
    l.pack(l.rows, 3 * Cp, Cp + h * K, l.packed);
    gemm(S, Kp, S, l.dscores, Sp, 1, l.packed, Kp, l.dpacked, Kp, false);
    l.unpack(l.dpacked, l.drows, 3 * Cp, h * K, l.scale);
    l.pack(l.rows, 3 * Cp, h * K, l.packed);
    gemm(S, Kp, S, l.dscores, 1, Sp, l.packed, Kp, l.dpacked, Kp, false);
    l.unpack(l.dpacked, l.drows, 3 * Cp, Cp + h * K, l.scale);
}

static void attention_backward(const FrequencyArgs& a, int64_t begin, int64_t end, float* sums) {
    AttentionLayer l(a);
    const int64_t S = l.S, C = l.C, Cp = l.Cp;
    float *dnorm = sums, *dbias = dnorm + Cp, *dweight = dbias + 3 * Cp, *dout_bias = dweight + 3 * Cp * Cp, *dout_weight = dout_bias + Cp;
    for (int64_t r = begin; r < end; ++r) {
        const float *x = a.x + r * S * C, *dy = a.dy + r * S * C;
        l.attend(x, static_cast<float>(a.eps));
        for (int64_t s = 0; s < S; ++s) std::memcpy(l.dout + s * Cp, dy + s * C, sizeof(float) * C);
        add_rows(dout_bias, l.dout, S, Cp);
        gemm(C, Cp, S, l.dout, 1, Cp, l.mixed, Cp, dout_weight, Cp, true);
        gemm(S, Cp, C, l.dout, Cp, 1, l.out, Cp, l.dmixed, Cp, false);
        for (int64_t h = 0; h < l.H; ++h) attention_head_backward(l, h);
        add_rows(dbias, l.drows, S, 3 * Cp);
        gemm(3 * Cp, Cp, S, l.drows, 1, 3 * Cp, l.inner, Cp, dweight, Cp, true);
        gemm(S, Cp, 3 * Cp, l.drows, 3 * Cp, 1, l.qkv, Cp, l.dinner, Cp, false);
        for (int64_t s = 0; s < S; ++s)
            normalise_backward(x + s * C, l.norm, C, l.inverse[s], l.dinner + s * Cp, dy + s * C, dnorm, l.scratch,
                               a.dx + (r * S + s) * C);
    }
}

static void attention_finish(const FrequencyArgs& a, const float* sums) {
    const int64_t C = a.C, Cp = padded(C);
    const float *dbias = sums + Cp, *dweight = dbias + 3 * Cp, *dout_bias = dweight + 3 * Cp * Cp, *dout_weight = dout_bias + Cp;
    std::memcpy(a.dnorm, sums, sizeof(float) * C);
    std::memcpy(a.dout_bias, dout_bias, sizeof(float) * C);
    for (int64_t part = 0; part < 3; ++part) std::memcpy(a.dbias + part * C, dbias + part * Cp, sizeof(float) * C);
    for (int64_t o = 0; o < C; ++o) {
        std::memcpy(a.dout_weight + o * C, dout_weight + o * Cp, sizeof(float) * C);
        for (int64_t part = 0; part < 3; ++part)
            std::memcpy(a.dweight + (part * C + o) * C, dweight + (part * Cp + o) * Cp, sizeof(float) * C);
    }
}

}  // namespace SEMAMBA_NAMESPACE
