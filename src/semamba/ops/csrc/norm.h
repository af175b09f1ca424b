// InstanceNorm and PReLU of features (batch, T, F, C) in two passes over memory: statistics of blocks, then norm and slope.
//
// A block is up to `block` positions of one line of F positions. Every block's statistics are two-pass ones around its first
// position, blocks are joined in float64 in a fixed order (Chan et al. 1979): a large mean costs no digits, a constant input
// gives exactly zero, and the result does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "simd.h"

namespace SEMAMBA_NAMESPACE {

// The first `count` lanes, the others zero; all of them where count reaches VL.
static inline vec load_some(const float* p, int64_t count) {
    if (count >= VL) return load(p);
    vec v{};
    std::memcpy(&v, p, sizeof(float) * count);
    return v;
}

static inline void store_some(float* p, vec v, int64_t count) {
    if (count >= VL) return store(p, v);
    std::memcpy(p, &v, sizeof(float) * count);
}

// Mean and sum of squared deviations of `rows` rows of C floats, into `mean` (C) and `squares` (C).
static void block_statistics(const float* x, int64_t rows, int64_t C, float* mean, float* squares) {
    for (int64_t c = 0; c < C; c += VL) {
        const vec first = load_some(x + c, C - c);
        vec sum{}, square{};
        for (int64_t r = 0; r < rows; ++r) sum += load_some(x + r * C + c, C - c) - first;
        const vec centre = first + sum / static_cast<float>(rows);
        for (int64_t r = 0; r < rows; ++r) {
            const vec from = load_some(x + r * C + c, C - c) - centre;
            square += from * from;
        }
        store_some(mean + c, centre, C - c);
        store_some(squares + c, square, C - c);
    }
}

// Where a block lies: the first of its rows, and how many.
struct NormBlock {
    int64_t item, rows, index;
    int64_t row;
    NormBlock(const NormArgs& a, int64_t unit) {
        const int64_t in_line = (a.F + a.block - 1) / a.block, line = unit / in_line, first = unit % in_line * a.block;
        item = line / a.T, rows = a.F - first < a.block ? a.F - first : a.block;
        index = unit, row = line * a.F + first;
    }
    static int64_t count(const NormArgs& a) { return a.T * ((a.F + a.block - 1) / a.block); }  // of one item
};

static void norm_statistics(const NormArgs& a, int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
        const NormBlock b(a, unit);
        float* to = a.partial + unit * 3 * a.C;
        block_statistics(a.x + b.row * a.C, b.rows, a.C, to, to + a.C);
    }
}

// Joins the blocks of every item into its mean and inverse deviation.
static void norm_combine(const NormArgs& a) {
    const int64_t C = a.C, blocks = NormBlock::count(a);
    std::vector<double> mean(C), squares(C);
    for (int64_t item = 0; item < a.batch; ++item) {
        double count = 0;
        std::fill(mean.begin(), mean.end(), 0.), std::fill(squares.begin(), squares.end(), 0.);
        for (int64_t unit = item * blocks; unit < (item + 1) * blocks; ++unit) {
            const float *other = a.partial + unit * 3 * C, *other_squares = other + C;
            const double rows = static_cast<double>(NormBlock(a, unit).rows), share = rows / (count + rows), both = count * share;
            for (int64_t c = 0; c < C; ++c) {
                const double apart = other[c] - mean[c];
                mean[c] += apart * share;
                squares[c] += other_squares[c] + apart * apart * both;
            }
            count += rows;
        }
        for (int64_t c = 0; c < C; ++c) {
            a.mean[item * C + c] = static_cast<float>(mean[c]);
            a.inverse[item * C + c] = static_cast<float>(1. / std::sqrt(squares[c] / count + a.eps));
        }
    }
}

static void norm_apply(const NormArgs& a, int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
        const NormBlock b(a, unit);
        for (int64_t c = 0; c < a.C; c += VL) {
            const int64_t lanes = a.C - c;
            const vec mean = load_some(a.mean + b.item * a.C + c, lanes);
            const vec scale = load_some(a.inverse + b.item * a.C + c, lanes) * load_some(a.weight + c, lanes);
            const vec bias = load_some(a.bias + c, lanes), slope = a.slope ? load_some(a.slope + c, lanes) : all(1.f);
            for (int64_t r = 0; r < b.rows; ++r) {
                const int64_t at = (b.row + r) * a.C + c;
                const vec v = (load_some(a.x + at, lanes) - mean) * scale + bias;
                store_some(a.y + at, select(v < all(0.f), v * slope, v), lanes);
            }
        }
    }
}

// Sums over a block: gradient of the norm's output, the same times the normalised input, and the slope's gradient.
static void norm_gradient_sums(const NormArgs& a, int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
        const NormBlock b(a, unit);
        float* to = a.partial + unit * 3 * a.C;
        for (int64_t c = 0; c < a.C; c += VL) {
            const int64_t lanes = a.C - c;
            const vec mean = load_some(a.mean + b.item * a.C + c, lanes), inverse = load_some(a.inverse + b.item * a.C + c, lanes);
            const vec weight = load_some(a.weight + c, lanes), bias = load_some(a.bias + c, lanes);
            const vec slope = a.slope ? load_some(a.slope + c, lanes) : all(1.f);
            vec sum{}, along{}, slopes{};
            for (int64_t r = 0; r < b.rows; ++r) {
                const int64_t at = (b.row + r) * a.C + c;
                const vec hat = (load_some(a.x + at, lanes) - mean) * inverse, v = hat * weight + bias, dy = load_some(a.dy + at, lanes);
                const ivec negative = v <= all(0.f);
                const vec g = select(negative, dy * slope, dy);
                sum += g, along += g * hat, slopes += select(negative, dy * v, all(0.f));
            }
            store_some(to + c, sum, lanes), store_some(to + a.C + c, along, lanes), store_some(to + 2 * a.C + c, slopes, lanes);
        }
    }
}

// Gradients of the parameters, and in `sums` (batch, 2, C) the two means that the gradient of x needs.
static void norm_gradient_combine(const NormArgs& a) {
    const int64_t C = a.C, blocks = NormBlock::count(a);
    std::vector<double> all_items(3 * C), one(3 * C);
    for (int64_t item = 0; item < a.batch; ++item) {
        std::fill(one.begin(), one.end(), 0.);
        for (int64_t unit = item * blocks; unit < (item + 1) * blocks; ++unit)
            for (int64_t c = 0; c < 3 * C; ++c) one[c] += a.partial[unit * 3 * C + c];
        const double rows = static_cast<double>(a.T * a.F);
        for (int64_t c = 0; c < 2 * C; ++c) a.sums[item * 2 * C + c] = static_cast<float>(one[c] / rows);
        for (int64_t c = 0; c < 3 * C; ++c) all_items[c] += one[c];
    }
    for (int64_t c = 0; c < C; ++c) {
        a.dbias[c] = static_cast<float>(all_items[c]);
        a.dweight[c] = static_cast<float>(all_items[C + c]);
        if (a.slope) a.dslope[c] = static_cast<float>(all_items[2 * C + c]);
    }
}

static void norm_gradient_apply(const NormArgs& a, int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
        const NormBlock b(a, unit);
        for (int64_t c = 0; c < a.C; c += VL) {
            const int64_t lanes = a.C - c;
            const vec mean = load_some(a.mean + b.item * a.C + c, lanes), inverse = load_some(a.inverse + b.item * a.C + c, lanes);
            const vec weight = load_some(a.weight + c, lanes), bias = load_some(a.bias + c, lanes);
            const vec slope = a.slope ? load_some(a.slope + c, lanes) : all(1.f);
            const vec sum = load_some(a.sums + b.item * 2 * a.C + c, lanes), along = load_some(a.sums + (b.item * 2 + 1) * a.C + c, lanes);
            for (int64_t r = 0; r < b.rows; ++r) {
                const int64_t at = (b.row + r) * a.C + c;
                const vec hat = (load_some(a.x + at, lanes) - mean) * inverse, v = hat * weight + bias, dy = load_some(a.dy + at, lanes);
                const vec g = select(v <= all(0.f), dy * slope, dy);
                store_some(a.dx + at, weight * inverse * (g - sum - hat * along), lanes);
            }
        }
    }
}

}  // namespace SEMAMBA_NAMESPACE
