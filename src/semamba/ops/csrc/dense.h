// One layer of a dense block: a 3 x 3 convolution over several groups of input channels at once, without joining them, and
// the statistics that the norm behind it needs.
//
// Along frequency the convolution is Winograd's F(4, 3) (Lavin & Gray 2016, with the points 0, +-1, +-2, inf): six products
// give four outputs where twelve would be needed. Along time its three taps are added up, so any dilation does.
//
// Letters: T frames, F bins, C channels of a group, O output channels; Cp, Op: rounded up to whole vectors. A tile is four
// neighbouring bins. One unit of work is kRows frames, `dilation` apart, of kTiles tiles: its transformed input, results
// and a group's weights fit into the second-level cache together.
#pragma once

#include "kernels.h"
#include "norm.h"
#include "rows.h"
#include "simd.h"

namespace SEMAMBA_NAMESPACE {

constexpr int kPoints = 6;

// Transformed weights, packed for `gemm_packed`: (group, time tap, point) matrices of (C, Op). Units are output channels.
static int64_t dense_weights_size(const DenseArgs& a) { return a.groups * 3 * kPoints * a.C * padded(a.O); }

static void dense_weights(const DenseArgs& a, int64_t begin, int64_t end) {
    const int64_t Op = padded(a.O), matrix = a.C * Op;
    for (int64_t o = begin; o < end; ++o)
        for (int64_t g = 0; g < a.groups; ++g)
            for (int64_t c = 0; c < a.C; ++c)
                for (int64_t tap = 0; tap < 3; ++tap) {
                    const float* w = a.weight + (((o * a.groups + g) * a.C + c) * 3 + tap) * 3;
                    const float even = w[0] + w[2], wide = w[0] + 4.f * w[2];
                    const float points[kPoints] = {w[0] * 0.25f, (even + w[1]) * (-1.f / 6), (even - w[1]) * (-1.f / 6),
                                                   (wide + 2.f * w[1]) * (1.f / 24), (wide - 2.f * w[1]) * (1.f / 24), w[2]};
                    float* to = a.packed + (g * 3 + tap) * kPoints * matrix;
                    for (int64_t i = 0; i < kPoints; ++i) packed_at(to + i * matrix, a.C, Op, c, o) = points[i];
                }
}

struct DenseUnit {
    int64_t item, first, rows, bin, bins, tiles, block;  // frames first, first + dilation, ...; bins [bin, bin + bins)
    DenseUnit(const DenseArgs& a, int64_t unit) {
        const int64_t blocks = (a.F + kDenseBins - 1) / kDenseBins, stretch = kDenseRows * a.dilation;
        const int64_t stretches = (a.T + stretch - 1) / stretch;
        block = unit % blocks, unit /= blocks;
        const int64_t offset = unit % a.dilation;
        unit /= a.dilation;
        first = unit % stretches * stretch + offset, item = unit / stretches;
        const int64_t left = (a.T - first + a.dilation - 1) / a.dilation;
        rows = first >= a.T ? 0 : left < kDenseRows ? left : kDenseRows;
        bin = block * kDenseBins, bins = a.F - bin < kDenseBins ? a.F - bin : kDenseBins;
        tiles = (bins + 3) / 4;
    }
};

struct DenseBuffers {
    int64_t Cp, Op;
    Arena arena;
    float *input, *output, *zeros, *edge;
    explicit DenseBuffers(const DenseArgs& a)
        : Cp(padded(a.C)), Op(padded(a.O)),
          arena(kPoints * kDenseBins / 4 * ((kDenseRows + 2) * Cp + kDenseRows * Op) + (kPoints + 1) * Cp) {
        input = arena.take(kPoints * kDenseBins / 4 * (kDenseRows + 2) * Cp);
        output = arena.take(kPoints * kDenseBins / 4 * kDenseRows * Op);
        zeros = arena.take(Cp), edge = arena.take(kPoints * Cp);
    }
};

// Group `x` to `input` (point, rows + 2, tiles, Cp): the frames of the unit and one `dilation` to either side.
static void transform_input(const DenseArgs& a, const DenseUnit& u, const DenseBuffers& b, const float* x) {
    const int64_t Cp = b.Cp, plane = (u.rows + 2) * u.tiles * Cp;
    for (int64_t r = 0; r < u.rows + 2; ++r) {
        const int64_t t = u.first + (r - 1) * a.dilation;
        float* row = b.input + r * u.tiles * Cp;
        if (t < 0 || t >= a.T) {
            for (int64_t i = 0; i < kPoints; ++i) std::memset(row + i * plane, 0, sizeof(float) * u.tiles * Cp);
            continue;
        }
        const float* line = x + (u.item * a.T + t) * a.F * a.C;
        for (int64_t tile = 0; tile < u.tiles; ++tile) {
            const float* point[kPoints];
            for (int64_t i = 0; i < kPoints; ++i) {
                const int64_t f = u.bin + 4 * tile + i - 1;
                point[i] = f < 0 || f >= a.F ? b.zeros : line + f * a.C;
                if (a.C == Cp || point[i] == b.zeros) continue;
                std::memcpy(b.edge + i * Cp, point[i], sizeof(float) * a.C);
                point[i] = b.edge + i * Cp;
            }
            float* to = row + tile * Cp;
            for (int64_t c = 0; c < Cp; c += VL) {
                const vec d0 = load(point[0] + c), d1 = load(point[1] + c), d2 = load(point[2] + c), d3 = load(point[3] + c),
                          d4 = load(point[4] + c), d5 = load(point[5] + c);
                const vec even = d4 - all(4.f) * d2, odd = d3 - all(4.f) * d1, near = d4 - d2, turn = all(2.f) * (d3 - d1);
                store(to + c, all(4.f) * d0 - all(5.f) * d2 + d4);
                store(to + plane + c, even + odd);
                store(to + 2 * plane + c, even - odd);
                store(to + 3 * plane + c, near + turn);
                store(to + 4 * plane + c, near - turn);
                store(to + 5 * plane + c, all(4.f) * d1 - all(5.f) * d3 + d5);
            }
        }
    }
}

// `output` (point, rows, tiles, Op) to y, and the statistics of every row.
static void transform_output(const DenseArgs& a, const DenseUnit& u, const DenseBuffers& b) {
    const int64_t Op = b.Op, plane = u.rows * u.tiles * Op, blocks = (a.F + kDenseBins - 1) / kDenseBins;
    for (int64_t r = 0; r < u.rows; ++r) {
        const int64_t line = u.item * a.T + u.first + r * a.dilation;
        float* y = a.y + (line * a.F + u.bin) * a.O;
        for (int64_t tile = 0; tile < u.tiles; ++tile) {
            const float* from = b.output + (r * u.tiles + tile) * Op;
            const int64_t bins = u.bins - 4 * tile;
            for (int64_t o = 0; o < a.O; o += VL) {
                const int64_t lanes = a.O - o;
                const vec m0 = load(from + o), m1 = load(from + plane + o), m2 = load(from + 2 * plane + o),
                          m3 = load(from + 3 * plane + o), m4 = load(from + 4 * plane + o), m5 = load(from + 5 * plane + o);
                const vec bias = load_some(a.bias + o, lanes);
                const vec even = m1 + m2, odd = m1 - m2, wide = m3 + m4, turn = m3 - m4;
                float* to = y + 4 * tile * a.O + o;
                store_some(to, bias + m0 + even + wide, lanes);
                if (bins > 1) store_some(to + a.O, bias + odd + all(2.f) * turn, lanes);
                if (bins > 2) store_some(to + 2 * a.O, bias + even + all(4.f) * wide, lanes);
                if (bins > 3) store_some(to + 3 * a.O, bias + odd + all(8.f) * turn + m5, lanes);
            }
        }
        float* statistics = a.partial + (line * blocks + u.block) * 3 * a.O;
        block_statistics(y, u.bins, a.O, statistics, statistics + a.O);
    }
}

static void dense_forward(const DenseArgs& a, int64_t begin, int64_t end) {
    const DenseBuffers b(a);
    const int64_t matrix = a.C * b.Op;
    for (int64_t unit = begin; unit < end; ++unit) {
        const DenseUnit u(a, unit);
        if (u.rows == 0) continue;
        const int64_t frame = u.tiles * b.Cp, in_plane = (u.rows + 2) * frame, out_plane = u.rows * u.tiles * b.Op;
        for (int64_t g = 0; g < a.groups; ++g) {
            transform_input(a, u, b, a.x[g]);
            for (int64_t i = 0; i < kPoints; ++i)
                for (int64_t tap = 0; tap < 3; ++tap)
                    gemm_packed(u.rows * u.tiles, b.Op, a.C, b.input + i * in_plane + tap * frame, b.Cp, 1,
                                a.packed + ((g * 3 + tap) * kPoints + i) * matrix, b.output + i * out_plane, b.Op, g > 0 || tap > 0);
        }
        transform_output(a, u, b);
    }
}

}  // namespace SEMAMBA_NAMESPACE
