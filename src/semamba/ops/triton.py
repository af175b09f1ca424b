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

_FORWARD_CONFIGS = [triton.Config({"BLOCK": 32 * warps}, num_warps=warps) for warps in (1, 4)]
_BACKWARD_CONFIGS = [triton.Config({}, num_warps=warps) for warps in (1, 2)]
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
def _sequence(P, L, Q, reverse):
    """Sequence s = (g P + p) Q + q of this program, the position it starts from and the sign of its steps."""
    s = tl.program_id(0).to(tl.int64)
    g, p, q = s // Q // P, s // Q % P, s % Q
    backwards = (g + reverse) % 2
    # 32 bits for what is multiplied with strides within a chunk: a quarter less address arithmetic.
    return s, g, p, q, backwards * (L - 1), (1 - 2 * backwards).to(tl.int32)


@triton.autotune(configs=_FORWARD_CONFIGS, key=["D", "N", "KEEP"])
@triton.jit(do_not_specialize=["one", "reverse"])
def _scan_forward(
    u, delta, A, B, C, skip, z, bias, initial, y, final, checkpoints,
    P, L, Q, D, N, one, reverse,
    ug, up, ut, uq, dg, dp, dt, dq, bg, bp, bt, bq, cg, cp, ct, cq, zg, zp, zt, zq,
    SOFTPLUS: tl.constexpr, KEEP: tl.constexpr,
    STEPS: tl.constexpr, STATES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    s, g, p, q, start, sign = _sequence(P, L, Q, reverse)
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
    us, ds, bs, cs, zs, ys = sign * ut, sign * dt, sign * bt, sign * ct, sign * zt, sign * Q * D
    for chunk in range(chunks):
        if KEEP:
            tl.store(checkpoints, h, mask=both)
            checkpoints += N * D
        for j in tl.static_range(STEPS):
            there = chunk * STEPS + j < L
            inside = dm & there
            x = tl.load(u + j * us, mask=inside, other=0.0).to(tl.float32)
            step = tl.load(delta + j * ds, mask=inside, other=0.0).to(tl.float32)
            b = tl.load(B + j * bs, mask=nm & there, other=0.0).to(tl.float32)
            c = tl.load(C + j * cs, mask=nm & there, other=0.0).to(tl.float32)
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
                gate = tl.load(z + j * zs, mask=inside, other=0.0).to(tl.float32)
                out *= gate * _sigmoid(gate)
            tl.store(y + j * ys, out, mask=inside)
        u, delta, B, C = u + STEPS * us, delta + STEPS * ds, B + STEPS * bs, C + STEPS * cs
        y += STEPS * ys
        if z is not None:
            z += STEPS * zs
    tl.store(final + s * D * N + place, h, mask=both)


@triton.autotune(configs=_BACKWARD_CONFIGS, key=["D", "N"])
@triton.jit(do_not_specialize=["reverse"])
def _scan_backward(
    u, delta, A, B, C, skip, z, bias, checkpoints, dy, dfinal,
    du, ddelta, dz, dA, dB, dC, dskip, dbias, dinitial,
    P, L, Q, D, N, rows, reverse,
    ug, up, ut, uq, dg, dp, dt, dq, bg, bp, bt, bq, cg, cp, ct, cq, zg, zp, zt, zq,
    SOFTPLUS: tl.constexpr, STEPS: tl.constexpr, STATES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    s, g, p, q, start, sign = _sequence(P, L, Q, reverse)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, STATES)
    dm, nm = d < D, n < N
    both = nm[:, None] & dm[None, :]
    place = n[:, None] * D + d[None, :]
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
    checkpoints += (s * chunks + chunks) * N * D + place
    us, ds, bs, cs, zs, ats, parts = sign * ut, sign * dt, sign * bt, sign * ct, sign * zt, sign * Q * D, sign * Q * N
    for back in range(chunks):
        first = (chunks - 1 - back) * STEPS
        checkpoints -= N * D
        h = tl.load(checkpoints, mask=both, other=0.0)
        states = (h,)
        u, delta, B, C = u - STEPS * us, delta - STEPS * ds, B - STEPS * bs, C - STEPS * cs
        at -= STEPS * ats
        part -= STEPS * parts
        if z is not None:
            z -= STEPS * zs
        for j in tl.static_range(STEPS):
            there = first + j < L
            inside = dm & there
            x = tl.load(u + j * us, mask=inside, other=0.0).to(tl.float32)
            step = tl.load(delta + j * ds, mask=inside, other=0.0).to(tl.float32)
            b = tl.load(B + j * bs, mask=nm & there, other=0.0).to(tl.float32)
            if bias is not None:
                step += offset
            if SOFTPLUS:
                step = _softplus(step)
            step = tl.where(inside, step, 0.0)
            h = tl.exp2(step[None, :] * rates) * h + (step * x)[None, :] * b[:, None]
            states = states + (h,)  # type: ignore[assignment]
        for j in tl.static_range(STEPS):
            i = STEPS - 1 - j
            there = first + i < L
            inside = dm & there
            x = tl.load(u + i * us, mask=inside, other=0.0).to(tl.float32)
            raw = tl.load(delta + i * ds, mask=inside, other=0.0).to(tl.float32)
            b = tl.load(B + i * bs, mask=nm & there, other=0.0).to(tl.float32)
            c = tl.load(C + i * cs, mask=nm & there, other=0.0).to(tl.float32)
            if bias is not None:
                raw += offset
            step = raw
            if SOFTPLUS:
                step = _softplus(raw)
            step = tl.where(inside, step, 0.0)
            dout = tl.load(dy + at + i * ats, mask=inside, other=0.0).to(tl.float32)
            if z is not None:
                gate = tl.load(z + i * zs, mask=inside, other=0.0).to(tl.float32)
                opening = _sigmoid(gate)
                out = tl.sum(states[STEPS - j] * c[:, None], axis=0)
                if skip is not None:
                    out += through * x
                tl.store(dz + at + i * ats, dout * out * opening * (1 + gate * (1 - opening)), mask=inside)
                dout *= gate * opening
            dh += c[:, None] * dout[None, :]
            tl.store(dC + part + i * parts, tl.sum(states[STEPS - j] * dout[None, :], axis=1), mask=nm & there)
            tl.store(dB + part + i * parts, tl.sum(dh * (step * x)[None, :], axis=1), mask=nm & there)
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
            tl.store(du + at + i * ats, dx, mask=inside)
            tl.store(ddelta + at + i * ats, dstep, mask=inside)
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


@triton.jit(do_not_specialize=["reverse"])
def _conv_forward(
    x, weight, bias, past, y, P, L, Q, D, reverse, xg, xp, xt, xq,
    TAPS: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    s, g, p, q, start, sign = _sequence(P, L, Q, reverse)
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


@triton.jit(do_not_specialize=["reverse"])
def _conv_backward(
    x, weight, bias, past, dy, dx, dweight, dbias, dpast, P, L, Q, D, reverse, xg, xp, xt, xq,
    TAPS: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    s, g, p, q, start, sign = _sequence(P, L, Q, reverse)
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
            P, L, Q, D, N, 1, int(reverse), *_strides(u, delta, B, C, z),
            SOFTPLUS=softplus, KEEP=keep, STEPS=CHUNK, STATES=triton.next_power_of_2(N),
        )  # fmt: skip


def scan_backward(
    inputs: tuple[Tensor | None, ...], softplus: bool, reverse: bool, checkpoints: Tensor, dy: Tensor, dfinal: Tensor
) -> list[Tensor]:
    """Gradients of the inputs, those of B and C in float32, and of the initial state; dy contiguous, dfinal (S, D, N).

    The kernel has A, dfinal, dA and dinitial as (N, D), like the checkpoints: the compiler then uses one layout of
    threads for all of them instead of moving states between two at every step.
    """
    u, delta, A, B, C, skip, z, bias = inputs
    assert u is not None and delta is not None and A is not None and B is not None and C is not None
    (G, P, L, Q, D), N, blocks = u.shape, A.shape[-1], triton.cdiv(u.shape[-1], SCAN_BLOCK)
    exact = u.new_empty(0, dtype=torch.float32)
    du, ddelta = u.new_empty(u.shape), delta.new_empty(delta.shape)
    dz = u.new_empty(0) if z is None else z.new_empty(z.shape)
    dA, dinitial = (exact.new_empty(G, P * Q, N, D) for _ in range(2))
    A_turned, dfinal = A.mT.contiguous(), dfinal.mT.contiguous()
    dB, dC = (exact.new_empty(blocks, G, P, L, Q, N) for _ in range(2))
    dskip, dbias = (exact.new_empty(G, P * Q, D) for _ in range(2))
    with _on(u):
        _scan_backward[(G * P * Q, blocks)](
            u, delta, A_turned, B, C, skip, z, bias, checkpoints, dy, dfinal,
            du, ddelta, dz, dA, dB, dC, dskip, dbias, dinitial,
            P, L, Q, D, N, G * P * L * Q, int(reverse), *_strides(u, delta, B, C, z),
            SOFTPLUS=softplus, STEPS=CHUNK, STATES=triton.next_power_of_2(N), BLOCK=SCAN_BLOCK,
        )  # fmt: skip
    sums = [u.new_empty(0) if t is None else d.sum(1).to(t.dtype) for t, d in ((skip, dskip), (bias, dbias))]
    dA = dA.sum(1).mT.to(A.dtype).contiguous()
    return [du, ddelta, dA, dB.sum(0), dC.sum(0), sums[0], dz, sums[1], dinitial.flatten(0, 1).mT.contiguous()]


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor, past: Tensor | None, reverse: bool) -> Tensor:
    """silu of the causal convolution of x (G, P, L, Q, D), weight (G, D, k); past (S, k - 1, D) in reading order."""
    (G, P, L, Q, D), taps = x.shape, weight.shape[-1]
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    with _on(x):
        _conv_forward[(G * P * Q, triton.cdiv(L, CONV_STEPS), triton.cdiv(D, CONV_BLOCK))](
            x, weight, bias, past, y, P, L, Q, D, int(reverse), *_strides(x),
            TAPS=taps, STEPS=CONV_STEPS, BLOCK=CONV_BLOCK, num_warps=4,
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
            x, weight, bias, past, dy, dx, dweight, dbias, dpast, P, L, Q, D, int(reverse), *_strides(x),
            TAPS=taps, STEPS=CONV_STEPS, BLOCK=CONV_BLOCK, num_warps=4,
        )  # fmt: skip
    return [dx, dweight.sum(1).to(weight.dtype), dbias.sum(1).to(bias.dtype), dpast]
