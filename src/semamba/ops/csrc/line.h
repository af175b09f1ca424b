// Convolutions along frequency whose taps do not reach into other frames, as the codec has them where it widens, halves or
// doubles the bins; with the statistics for the norm behind them. One matrix product for each tap.
//
// Letters: F bins in, G bins out, C channels in, O channels out (whole vectors).
#pragma once

#include "kernels.h"
#include "norm.h"
#include "rows.h"
#include "simd.h"

namespace SEMAMBA_NAMESPACE {

static void line_forward(const LineArgs& a, int64_t begin, int64_t end) {
    const int64_t matrix = a.C * a.O;
    Arena arena(a.taps * matrix);
    float* packed = arena.take(a.taps * matrix);
    for (int64_t o = 0; o < a.O; ++o)
        for (int64_t c = 0; c < a.C; ++c)
            for (int64_t k = 0; k < a.taps; ++k)
                packed_at(packed + k * matrix, a.C, a.O, c, o) = a.weight[(a.transposed ? c * a.O + o : o * a.C + c) * a.taps + k];
    for (int64_t line = begin; line < end; ++line) {
        const float* x = a.x + line * a.F * a.C;
        float* y = a.y + line * a.G * a.O;
        for (int64_t g = 0; g < a.G; ++g) std::memcpy(y + g * a.O, a.bias, sizeof(float) * a.O);
        for (int64_t k = 0; k < a.taps; ++k) {
            if (a.transposed) gemm_packed(a.F, a.O, a.C, x, a.C, 1, packed + k * matrix, y + k * a.O, a.stride * a.O, true);
            else gemm_packed(a.G, a.O, a.C, x + k * a.C, a.stride * a.C, 1, packed + k * matrix, y, a.O, true);
        }
        float* statistics = a.partial + line * 3 * a.O;
        block_statistics(y, a.G, a.O, statistics, statistics + a.O);
    }
}

}  // namespace SEMAMBA_NAMESPACE
