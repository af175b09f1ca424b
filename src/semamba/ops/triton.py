"""Triton kernels for GPUs: selective scan and short convolution, forward and backward. Only this file imports triton.

Letters: G directions, P outer sequences, L steps, Q inner sequences, D inner channels, N state size, k taps; S = G P Q
sequences in all. Tensors are (G, P, L, Q, channels) with any strides but the last, so time and frequency of features
(B, T, F, C) are both read in place. Position t of step i is i, or L - 1 - i in a direction that reads backwards; with
G = 2 the second direction reads against the first, in the same launch.

Scan: one program per sequence and block of channels walks the steps in chunks; the state (N, block) stays in float32
registers. Forward stores the state before every chunk; backward takes the chunks from the last, recomputes the CHUNK
states of one from its stored state and keeps those in registers. What several programs add to (A, D, delta_bias, conv
weights: over sequences; B, C: over blocks of channels) goes to buffers of partial sums that PyTorch adds up: no
atomics, so equal input gives equal bits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from semamba.ops import gpu
from semamba.ops.gpu import CHUNK

SCAN_BLOCK = 32  # channels of a program in the backward pass
CONV_STEPS, CONV_BLOCK = 32, 64

_SHAPES = ((32, 1), (64, 1), (64, 2), (128, 4))
_FORWARD_CONFIGS = [triton.Config({"BLOCK": block}, num_warps=warps) for block, warps in _SHAPES]
_BACKWARD_CONFIGS = [triton.Config({}, num_warps=warps) for warps in (1, 2, 4)]
if gpu.interpreted():  # nothing to time there
    del _FORWARD_CONFIGS[1:], _BACKWARD_CONFIGS[1:]
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _softplus(x):
    """log(1 + exp(x)) to float32 precision; the series replaces log1p, which the language lacks."""
    e = tl.exp(-tl.abs(x))
    series = e * (1 - e * (0.5 - e * (1.0 / 3 - e * (0.25 - e * (0.2 - e * (1.0 / 6))))))
    return tl.maximum(x, 0.0) + tl.where(e < 0.1, series, tl.log(1 + e))


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _sequence(P, L, Q, REVERSE: tl.constexpr):
    """Sequence s = (g P + p) Q + q of this program, the position it starts from and the sign of its steps."""
    s = tl.program_id(0).to(tl.int64)
    g, p, q = s // Q // P, s // Q % P, s % Q
    backwards = (g + 1) % 2 if REVERSE else g % 2
    return s, g, p, q, backwards * (L - 1), 1 - 2 * backwards


@triton.autotune(configs=_FORWARD_CONFIGS, key=["D", "N", "KEEP"])
@triton.jit(do_not_specialize=["one"])
def _scan_forward(
    u, delta, A, B, C, skip, z, bias, initial, y, final, checkpoints,
    P, L, Q, D, N, one,
    ug, up, ut, uq, dg, dp, dt, dq, bg, bp, bt, bq, cg, cp, ct, cq, zg, zp, zt, zq,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, KEEP: tl.constexpr,
    STEPS: tl.constexpr, STATES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    s, g, p, q, start, sign = _sequence(P, L, Q, REVERSE)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, STATES)
    dm, nm = d < D, n < N
    both = dm[:, None] & nm[None, :]
    # `one` hides from the compiler what is adjacent in memory: it then gives each thread one channel with all states
    # instead of four channels with a quarter of them, and the sum over states needs no exchange between threads.
    place = d[:, None] * (N * one) + n[None, :] * one
    rates = tl.load(A + g * D * N + place, mask=both, other=0.0).to(tl.float32) * _LOG2_E
    h = tl.zeros((BLOCK, STATES), tl.float32)
    if initial is not None:
        h += tl.load(initial + s * D * N + place, mask=both, other=0.0).to(tl.float32)
    if skip is not None:
        through = tl.load(skip + g * D + d, mask=dm, other=0.0).to(tl.float32)
    if bias is not None:
        offset = tl.load(bias + g * D + d, mask=dm, other=0.0).to(tl.float32)
    # Every pointer walks along its sequence.
    u += g * ug + p * up + start * ut + q * uq + d
    delta += g * dg + p * dp + start * dt + q * dq + d
    B += g * bg + p * bp + start * bt + q * bq + n
    C += g * cg + p * cp + start * ct + q * cq + n
    if z is not None:
        z += g * zg + p * zp + start * zt + q * zq + d
    y += (((g * P + p) * L + start) * Q + q) * D + d
    chunks = tl.cdiv(L, STEPS)
    checkpoints += s * chunks * N * D + n[None, :] * (D * one) + d[:, None] * one
    for chunk in range(chunks):
        if KEEP:
            tl.store(checkpoints, h, mask=both)
            checkpoints += N * D
        for j in tl.static_range(STEPS):
            there = chunk * STEPS + j < L
            inside = dm & there
            x = tl.load(u, mask=inside, other=0.0).to(tl.float32)
            step = tl.load(delta, mask=inside, other=0.0).to(tl.float32)
            b = tl.load(B, mask=nm & there, other=0.0).to(tl.float32)
            c = tl.load(C, mask=nm & there, other=0.0).to(tl.float32)
            if bias is not None:
                step += offset
            if SOFTPLUS:
                step = _softplus(step)
            step = tl.where(inside, step, 0.0)  # beyond the end the state stays as it is
            h = tl.exp2(step[:, None] * rates) * h + (step * x)[:, None] * b[None, :]
            out = tl.sum(h * c[None, :], axis=1)
            if skip is not None:
                out += through * x
            if z is not None:
                gate = tl.load(z, mask=inside, other=0.0).to(tl.float32)
                out *= gate * _sigmoid(gate)
                z += sign * zt
            tl.store(y, out, mask=inside)
            u, delta, B, C = u + sign * ut, delta + sign * dt, B + sign * bt, C + sign * ct
            y += sign * Q * D
    tl.store(final + s * D * N + place, h, mask=both)


@triton.autotune(configs=_BACKWARD_CONFIGS, key=["D", "N"])
@triton.jit
def _scan_backward(
    u, delta, A, B, C, skip, z, bias, checkpoints, dy, dfinal,
    du, ddelta, dz, dA, dB, dC, dskip, dbias, dinitial,
    P, L, Q, D, N, rows,
    ug, up, ut, uq, dg, dp, dt, dq, bg, bp, bt, bq, cg, cp, ct, cq, zg, zp, zt, zq,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    STEPS: tl.constexpr, STATES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    s, g, p, q, start, sign = _sequence(P, L, Q, REVERSE)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, STATES)
    dm, nm = d < D, n < N
    both = nm[:, None] & dm[None, :]
    place = d[None, :] * N + n[:, None]
    rates = tl.load(A + g * D * N + place, mask=both, other=0.0).to(tl.float32) * _LOG2_E
    dh = tl.load(dfinal + s * D * N + place, mask=both, other=0.0).to(tl.float32)
    sum_A = tl.zeros((STATES, BLOCK), tl.float32)
    sum_skip, sum_bias = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    if skip is not None:
        through = tl.load(skip + g * D + d, mask=dm, other=0.0).to(tl.float32)
    if bias is not None:
        offset = tl.load(bias + g * D + d, mask=dm, other=0.0).to(tl.float32)
    # The pointers stand at the step after the last, a whole number of chunks from the first.
    chunks = tl.cdiv(L, STEPS)
    start += sign * chunks * STEPS
    u += g * ug + p * up + start * ut + q * uq + d
    delta += g * dg + p * dp + start * dt + q * dq + d
    B += g * bg + p * bp + start * bt + q * bq + n
    C += g * cg + p * cp + start * ct + q * cq + n
    if z is not None:
        z += g * zg + p * zp + start * zt + q * zq + d
    row = ((g * P + p) * L + start) * Q + q  # of a contiguous tensor
    at = row * D + d
    part = (tl.program_id(1).to(tl.int64) * rows + row) * N + n
    checkpoints += (s * chunks + chunks) * N * D + n[:, None] * D + d[None, :]
    for back in range(chunks):
        first = (chunks - 1 - back) * STEPS
        checkpoints -= N * D
        h = tl.load(checkpoints, mask=both, other=0.0)
        states = (h,)
        u, delta, B = u - sign * STEPS * ut, delta - sign * STEPS * dt, B - sign * STEPS * bt
        for j in tl.static_range(STEPS):
            there = first + j < L
            inside = dm & there
            x = tl.load(u, mask=inside, other=0.0).to(tl.float32)
            step = tl.load(delta, mask=inside, other=0.0).to(tl.float32)
            b = tl.load(B, mask=nm & there, other=0.0).to(tl.float32)
            if bias is not None:
                step += offset
            if SOFTPLUS:
                step = _softplus(step)
            step = tl.where(inside, step, 0.0)
            h = tl.exp2(step[None, :] * rates) * h + (step * x)[None, :] * b[:, None]
            states = states + (h,)  # type: ignore[assignment]
            u, delta, B = u + sign * ut, delta + sign * dt, B + sign * bt
        for j in tl.static_range(STEPS):
            there = first + STEPS - 1 - j < L
            inside = dm & there
            u, delta, B, C = u - sign * ut, delta - sign * dt, B - sign * bt, C - sign * ct
            at -= sign * Q * D
            part -= sign * Q * N
            x = tl.load(u, mask=inside, other=0.0).to(tl.float32)
            raw = tl.load(delta, mask=inside, other=0.0).to(tl.float32)
            b = tl.load(B, mask=nm & there, other=0.0).to(tl.float32)
            c = tl.load(C, mask=nm & there, other=0.0).to(tl.float32)
            if bias is not None:
                raw += offset
            step = raw
            if SOFTPLUS:
                step = _softplus(raw)
            step = tl.where(inside, step, 0.0)
            dout = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
            if z is not None:
                z -= sign * zt
                gate = tl.load(z, mask=inside, other=0.0).to(tl.float32)
                opening = _sigmoid(gate)
                out = tl.sum(states[STEPS - j] * c[:, None], axis=0)
                if skip is not None:
                    out += through * x
                tl.store(dz + at, dout * out * opening * (1 + gate * (1 - opening)), mask=inside)
                dout *= gate * opening
            dh += c[:, None] * dout[None, :]
            tl.store(dC + part, tl.sum(states[STEPS - j] * dout[None, :], axis=1), mask=nm & there)
            tl.store(dB + part, tl.sum(dh * (step * x)[None, :], axis=1), mask=nm & there)
            dx = tl.sum(dh * b[:, None], axis=0)
            dh *= tl.exp2(step[None, :] * rates)
            slope = dh * states[STEPS - 1 - j]
            sum_A += slope * step[None, :]
            dstep = dx * x + tl.sum(slope * rates, axis=0) * (1 / _LOG2_E)
            dx *= step
            if skip is not None:
                dx += through * dout
                sum_skip += dout * x
            if SOFTPLUS:
                dstep *= _sigmoid(raw)
            dstep = tl.where(inside, dstep, 0.0)
            sum_bias += dstep
            tl.store(du + at, dx, mask=inside)
            tl.store(ddelta + at, dstep, mask=inside)
    tl.store(dA + s * D * N + place, sum_A, mask=both)
    tl.store(dinitial + s * D * N + place, dh, mask=both)
    tl.store(dskip + s * D + d, sum_skip, mask=dm)
    tl.store(dbias + s * D + d, sum_bias, mask=dm)


@triton.jit
def _read(x, past, i, start, sign, L, TAPS: tl.constexpr, xt, d, dm, D):
    """Rows of steps i (steps,), those before 0 from `past` (k - 1, D) where there is one; float32 (steps, block)."""
    t = start + sign * i
    value = tl.load(x + t[:, None] * xt + d[None, :], mask=((i >= 0) & (i < L))[:, None] & dm[None, :], other=0.0)
    value = value.to(tl.float32)
    if past is not None:
        at = (i + TAPS - 1)[:, None] * D + d[None, :]
        value += tl.load(past + at, mask=((i < 0) & (i > -TAPS))[:, None] & dm[None, :], other=0.0).to(tl.float32)
    return value


@triton.jit
def _conv_forward(
    x, weight, bias, past, y, P, L, Q, D, xg, xp, xt, xq,
    TAPS: tl.constexpr, REVERSE: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    s, g, p, q, start, sign = _sequence(P, L, Q, REVERSE)
    i = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    d = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    dm = d < D
    x += g * xg + p * xp + q * xq
    if past is not None:
        past += s * (TAPS - 1) * D
    total = tl.zeros((STEPS, BLOCK), tl.float32)
    total += tl.load(bias + g * D + d, mask=dm, other=0.0).to(tl.float32)[None, :]
    for m in tl.static_range(TAPS):
        w = tl.load(weight + (g * D + d) * TAPS + m, mask=dm, other=0.0).to(tl.float32)
        total += w[None, :] * _read(x, past, i - (TAPS - 1) + m, start, sign, L, TAPS, xt, d, dm, D)
    t = start + sign * i
    at = (((g * P + p) * L + t) * Q + q)[:, None] * D + d[None, :]
    tl.store(y + at, total * _sigmoid(total), mask=(i < L)[:, None] & dm[None, :])


@triton.jit
def _conv_backward(
    x, weight, bias, past, dy, dx, dweight, dbias, dpast, P, L, Q, D, xg, xp, xt, xq,
    TAPS: tl.constexpr, REVERSE: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    s, g, p, q, start, sign = _sequence(P, L, Q, REVERSE)
    i = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    if past is not None:
        i -= TAPS - 1  # the steps before the first have gradients too
    d = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    dm = d < D
    x += g * xg + p * xp + q * xq
    here = s * (TAPS - 1) * D
    if past is not None:
        past += here
    offset = tl.load(bias + g * D + d, mask=dm, other=0.0).to(tl.float32)
    near = ()  # inputs of steps i - (k - 1) ... i + (k - 1)
    taps = ()
    for m in tl.static_range(2 * TAPS - 1):
        row = _read(x, past, i - (TAPS - 1) + m, start, sign, L, TAPS, xt, d, dm, D)
        near = near + (row,)  # type: ignore[assignment]
    for m in tl.static_range(TAPS):
        w = tl.load(weight + (g * D + d) * TAPS + m, mask=dm, other=0.0).to(tl.float32)
        taps = taps + (w,)  # type: ignore[assignment]
    total = tl.zeros((STEPS, BLOCK), tl.float32)
    sums = s * tl.num_programs(1) + tl.program_id(1)  # row of partial sums
    for j in tl.static_range(TAPS):  # outputs of step i + j read step i with tap k - 1 - j
        k = i + j
        before = tl.zeros((STEPS, BLOCK), tl.float32) + offset[None, :]
        for m in tl.static_range(TAPS):
            before += taps[m][None, :] * near[j + m]
        t = start + sign * k
        inside = ((k >= 0) & (k < L))[:, None] & dm[None, :]
        gate = _sigmoid(before)
        out = tl.load(dy + (((g * P + p) * L + t) * Q + q)[:, None] * D + d[None, :], mask=inside, other=0.0)
        out = out.to(tl.float32) * gate * (1 + before * (1 - gate))
        total += taps[TAPS - 1 - j][None, :] * out
        if j == 0:
            tl.store(dbias + sums * D + d, tl.sum(out, axis=0), mask=dm)
            for m in tl.static_range(TAPS):
                tl.store(dweight + (sums * D + d) * TAPS + m, tl.sum(out * near[m], axis=0), mask=dm)
    t = start + sign * i
    at = (((g * P + p) * L + t) * Q + q)[:, None] * D + d[None, :]
    tl.store(dx + at, total, mask=((i >= 0) & (i < L))[:, None] & dm[None, :])
    if past is not None:
        at = here + (i + TAPS - 1)[:, None] * D + d[None, :]
        tl.store(dpast + at, total, mask=((i < 0) & (i > -TAPS))[:, None] & dm[None, :])


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _strides(*tensors: Tensor | None) -> list[int]:
    return [0 if tensor is None else tensor.stride(axis) for tensor in tensors for axis in range(4)]


def scan_forward(
    inputs: tuple[Tensor | None, ...], initial: Tensor | None, softplus: bool, reverse: bool,
    y: Tensor, final: Tensor, checkpoints: Tensor, keep: bool,
) -> None:  # fmt: skip
    """Fills y, final (S, D, N) and, with `keep`, checkpoints (S, chunks, N, D); inputs as `gpu.scan` has them."""
    u, delta, A, B, C, skip, z, bias = inputs
    assert u is not None and A is not None
    (G, P, L, Q, D), N = u.shape, A.shape[-1]
    with _on(u):
        _scan_forward[lambda meta: (G * P * Q, triton.cdiv(D, meta["BLOCK"]))](
            u, delta, A, B, C, skip, z, bias, initial, y, final, checkpoints,
            P, L, Q, D, N, 1, *_strides(u, delta, B, C, z),
            SOFTPLUS=softplus, REVERSE=reverse, KEEP=keep, STEPS=CHUNK, STATES=triton.next_power_of_2(N),
        )  # fmt: skip


def scan_backward(
    inputs: tuple[Tensor | None, ...], softplus: bool, reverse: bool, checkpoints: Tensor, dy: Tensor, dfinal: Tensor
) -> list[Tensor]:
    """Gradients of the inputs and of the initial state; dy contiguous, dfinal (S, D, N)."""
    u, delta, A, B, C, skip, z, bias = inputs
    assert u is not None and delta is not None and A is not None and B is not None and C is not None
    (G, P, L, Q, D), N = u.shape, A.shape[-1]
    blocks = triton.cdiv(D, SCAN_BLOCK)
    exact = u.new_empty(0, dtype=torch.float32)
    du, ddelta = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (u, delta))
    dz = u.new_empty(0) if z is None else torch.empty_like(z, memory_format=torch.contiguous_format)
    dA, dinitial = (exact.new_empty(G, P * Q, D, N) for _ in range(2))
    dB, dC = (exact.new_empty(blocks, G, P, L, Q, N) for _ in range(2))
    dskip, dbias = (exact.new_empty(G, P * Q, D) for _ in range(2))
    with _on(u):
        _scan_backward[(G * P * Q, blocks)](
            u, delta, A, B, C, skip, z, bias, checkpoints, dy, dfinal,
            du, ddelta, dz, dA, dB, dC, dskip, dbias, dinitial,
            P, L, Q, D, N, G * P * L * Q, *_strides(u, delta, B, C, z),
            SOFTPLUS=softplus, REVERSE=reverse, STEPS=CHUNK, STATES=triton.next_power_of_2(N), BLOCK=SCAN_BLOCK,
        )  # fmt: skip
    optional = [u.new_empty(0) if t is None else d.sum(1).to(t.dtype) for t, d in ((skip, dskip), (bias, dbias))]
    sums = [dA.sum(1).to(A.dtype), dB.sum(0).to(B.dtype), dC.sum(0).to(C.dtype)]
    return [du, ddelta, *sums, optional[0], dz, optional[1], dinitial.view(G * P * Q, D, N)]


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor, past: Tensor | None, reverse: bool) -> Tensor:
    """silu of the causal convolution of x (G, P, L, Q, D), weight (G, D, k); past (S, k - 1, D) in reading order."""
    (G, P, L, Q, D), taps = x.shape, weight.shape[-1]
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    with _on(x):
        _conv_forward[(G * P * Q, triton.cdiv(L, CONV_STEPS), triton.cdiv(D, CONV_BLOCK))](
            x, weight, bias, past, y, P, L, Q, D, *_strides(x),
            TAPS=taps, REVERSE=reverse, STEPS=CONV_STEPS, BLOCK=CONV_BLOCK, num_warps=4,
        )  # fmt: skip
    return y


def conv_backward(
    x: Tensor, weight: Tensor, bias: Tensor, past: Tensor | None, reverse: bool, dy: Tensor
) -> list[Tensor]:
    """Gradients of x, weight, bias and past (zero-size without one); dy contiguous."""
    (G, P, L, Q, D), taps = x.shape, weight.shape[-1]
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dpast = x.new_empty(0) if past is None else torch.empty_like(past)
    pieces = triton.cdiv(L if past is None else L + taps - 1, CONV_STEPS)
    dweight = torch.empty(G, P * Q * pieces, D, taps, device=x.device, dtype=torch.float32)
    dbias = dweight.new_empty(G, P * Q * pieces, D)
    with _on(x):
        _conv_backward[(G * P * Q, pieces, triton.cdiv(D, CONV_BLOCK))](
            x, weight, bias, past, dy, dx, dweight, dbias, dpast, P, L, Q, D, *_strides(x),
            TAPS=taps, REVERSE=reverse, STEPS=CONV_STEPS, BLOCK=CONV_BLOCK, num_warps=4,
        )  # fmt: skip
    return [dx, dweight.sum(1).to(weight.dtype), dbias.sum(1).to(bias.dtype), dpast]
