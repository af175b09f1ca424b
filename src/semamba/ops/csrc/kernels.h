// What Python passes to the kernels: plain structs of 64-bit integers and pointers, mirrored in ops/cpu.py.
//
// Letters: L length, D inner channels, N state size, d model channels, R dt_rank, k taps of the short convolution.
#pragma once

#include <cstdint>

// Grows with every change of a structure here or of a function in dispatch.cpp; ops/cpu.py loads no other.
constexpr int64_t kVersion = 2;

// A scan over `batch` sequences. Tensors are (batch, L, D or N) with unit last stride and the strides given; a null
// pointer leaves an optional tensor out. `checkpoints` is (batch, chunks, N, padded D): the state before every chunk.
struct ScanArgs {
    int64_t batch, length, D, N, reverse, softplus, threads;
    int64_t u_batch, u_step, delta_batch, delta_step, B_batch, B_step, C_batch, C_step, z_batch, z_step;
    const float *u, *delta, *A, *B, *C, *skip, *z, *delta_bias, *initial_state;
    float *y, *final_state, *checkpoints;
    // Backward: gradients in, and gradients out in contiguous tensors of the shapes of the forward's inputs.
    const float *dy, *dfinal_state;
    float *du, *ddelta, *dA, *dB, *dC, *dskip, *dz, *ddelta_bias, *dinitial_state;
};

// A whole residual block, x + Mamba(RMSNorm(x)), over x (outer, L, inner, d) contiguous: outer * inner sequences.
struct BlockArgs {
    int64_t outer, length, inner, d, D, N, R, taps, reverse, residual, threads;
    const float *x, *norm, *in_proj, *conv_weight, *conv_bias, *x_proj, *dt_proj, *dt_bias, *A, *skip, *out_proj;
    const float *conv_state, *scan_state;  // (sequences, k - 1, D) and (sequences, D, N), or null
    const float* base;                     // what the layer's output is added to: x, y itself, or null
    float *y, *final_conv, *final_scan, *checkpoints;
    double eps;
    const float* dy;
    float *dx, *dnorm, *din_proj, *dconv_weight, *dconv_bias, *dx_proj, *ddt_proj, *ddt_bias, *dA, *dskip, *dout_proj;
};

// A residual layer along frequency over `rows` independent rows of x (rows, S, C); see frequency.h. Convolution: weight
// (C, 3, C) as (out, tap, in), bias (C). Attention: weight (3 C, C), bias (3 C), out_weight (C, C), out_bias (C).
struct FrequencyArgs {
    int64_t rows, S, C, heads, threads;
    const float *x, *norm, *weight, *bias, *out_weight, *out_bias;
    float* y;
    double eps;
    const float* dy;
    float *dx, *dnorm, *dweight, *dbias, *dout_weight, *dout_bias;
};

// InstanceNorm over the T lines of F positions of each item of x (batch, T, F, C), then PReLU; see norm.h. `slope` null leaves
// PReLU out. `partial` (batch * T * blocks of a line, 3, C) is scratch; mean and inverse deviation are (batch, C).
struct NormArgs {
    int64_t batch, T, F, C, block, threads;
    const float *x, *weight, *bias, *slope;
    float *y, *partial, *mean, *inverse;
    double eps;
    const float* dy;
    float *dx, *dweight, *dbias, *dslope, *sums;
};

// A layer of a dense block up to its norm; see dense.h. `groups` inputs (batch, T, F, C), weight (O, groups * C, 3, 3), y
// (batch, T, F, O); `packed` is scratch of semamba_dense_scratch floats, `partial` becomes that of NormArgs with block kDenseBins.
constexpr int64_t kDenseGroups = 16, kDenseRows = 8, kDenseBins = 52;
struct DenseArgs {
    int64_t batch, T, F, C, O, groups, dilation, threads;
    const float *x[kDenseGroups], *weight, *bias;
    float *y, *packed, *partial;
};

// A convolution along frequency, or a transposed one; see line.h. x (lines, F, C), y (lines, G, O), weight (O, C, taps) or
// (C, O, taps); `partial` becomes that of NormArgs with whole lines as blocks.
struct LineArgs {
    int64_t lines, F, G, C, O, taps, stride, transposed, threads;
    const float *x, *weight, *bias;
    float *y, *partial;
};

// Steps between two stored states; the backward pass recomputes what lies between.
constexpr int64_t kChunk = 32;

struct Kernels {
    const char* name;
    int64_t lanes;
    // Each works on sequences [begin, end) in one thread; `sums` is that thread's own, zeroed, summed by the caller.
    int64_t (*scan_sums)(const ScanArgs&);
    void (*scan_forward)(const ScanArgs&, int64_t begin, int64_t end);
    void (*scan_backward)(const ScanArgs&, int64_t begin, int64_t end, float* sums);
    void (*scan_finish)(const ScanArgs&, const float* sums);
    int64_t (*block_sums)(const BlockArgs&);
    void (*block_forward)(const BlockArgs&, int64_t begin, int64_t end);
    void (*block_backward)(const BlockArgs&, int64_t begin, int64_t end, float* sums);
    void (*block_finish)(const BlockArgs&, const float* sums);
    int64_t (*conv_sums)(const FrequencyArgs&);
    void (*conv_forward)(const FrequencyArgs&, int64_t begin, int64_t end);
    void (*conv_backward)(const FrequencyArgs&, int64_t begin, int64_t end, float* sums);
    void (*conv_finish)(const FrequencyArgs&, const float* sums);
    int64_t (*attention_sums)(const FrequencyArgs&);
    void (*attention_forward)(const FrequencyArgs&, int64_t begin, int64_t end);
    void (*attention_backward)(const FrequencyArgs&, int64_t begin, int64_t end, float* sums);
    void (*attention_finish)(const FrequencyArgs&, const float* sums);
    // Blocks [begin, end) in one thread, then one call that joins them.
    void (*norm_statistics)(const NormArgs&, int64_t begin, int64_t end);
    void (*norm_combine)(const NormArgs&);
    void (*norm_apply)(const NormArgs&, int64_t begin, int64_t end);
    void (*norm_gradient_sums)(const NormArgs&, int64_t begin, int64_t end);
    void (*norm_gradient_combine)(const NormArgs&);
    void (*norm_gradient_apply)(const NormArgs&, int64_t begin, int64_t end);
    int64_t (*dense_weights_size)(const DenseArgs&);
    void (*dense_weights)(const DenseArgs&, int64_t begin, int64_t end);
    void (*dense_forward)(const DenseArgs&, int64_t begin, int64_t end);
    void (*line_forward)(const LineArgs&, int64_t begin, int64_t end);
};
