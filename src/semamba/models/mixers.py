"""Sequence mixers: the exchangeable cores of the basic and the advanced model.

Letters: B batch, L sequence length, d = d_model, h heads, e channels of one head.
Every mixer maps (B, L, d) to (B, L, d) with its norms and residuals inside, as `forward(x, state=None) -> (y, state)`.
One-directional mixers return what they remember, to be handed back with the next piece of the sequence; mixers that
need the future return None and raise ValueError when they are given a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semamba.errors import SemambaError
from semamba.models.mamba import Mamba, MambaConfig, MambaState, RMSNorm, joined_pair, residual_pair
from semamba.ops import backend_for


@dataclass(frozen=True)
class MixerConfig:
    """One mixer without its width, which the codec around it sets. A field that `kind` does not use is ignored."""

    kind: Literal["mamba", "lstm", "transformer", "conformer"] = "mamba"
    bidirectional: bool = True
    expand: int = 4  # mamba: inner channels / d_model
    d_state: int = 16  # mamba
    d_conv: int = 4  # mamba
    norm_eps: float = 1e-5  # mamba: RMSNorm
    heads: int = 4  # transformer, conformer
    head_dim: int = 16  # transformer; the conformer splits d_model evenly
    feedforward: int = 4  # transformer, conformer: hidden channels / d_model
    context: int = 512  # transformer, one-directional: positions that a query sees, itself included
    kernel: int = 31  # conformer: depthwise convolution
    chunk: int = 0  # mamba, bi-directional: positions that the backward half runs over at a time; 0 is all


def build_mixer(config: MixerConfig, d_model: int) -> Mixer:
    """The mixer that `config` describes, for sequences (B, L, d_model)."""
    if config.chunk and (config.chunk < 0 or config.kind != "mamba" or not config.bidirectional):
        raise SemambaError("mixer.chunk: it bounds the backward half of a bi-directional mamba; leave it 0 for others")
    if config.kind == "mamba" and config.bidirectional:
        return ChunkedMamba(config, d_model) if config.chunk else BidirectionalMamba(config, d_model)
    if config.kind == "mamba":
        return MambaLayer(config, d_model)
    if config.kind == "lstm":
        return LstmMixer(config, d_model)
    if config.kind == "transformer":
        return Transformer(config, d_model)
    if not config.bidirectional:
        raise SemambaError("mixer.bidirectional: a conformer needs the future; choose mamba, lstm or transformer")
    return Conformer(config, d_model)


def refuse_state(state: Any) -> None:
    """Raise ValueError unless `state` is None: the caller sees the whole sequence and continues from nothing."""
    if state is not None:
        raise ValueError("this model needs the future and cannot continue from a state; give it the whole signal")


class Mixer(nn.Module):
    """A mixer of sequences; `along` runs it over either axis of features."""

    def along(self, x: Tensor, axis: int) -> Tensor:
        """Mix features (B, T, F, d) along time (axis 1, in every bin) or frequency (axis 2, in every frame)."""
        if axis == 2:
            return self(x.flatten(0, 1))[0].reshape(x.shape)
        y = self(x.transpose(1, 2).flatten(0, 1))[0]  # (B F, T, d)
        return y.unflatten(0, (-1, x.shape[2])).transpose(1, 2)


class MambaLayer(Mixer):
    """x + Mamba(RMSNorm(x)) in one direction."""

    def __init__(self, config: MixerConfig, d_model: int, reverse: bool = False) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model, config.norm_eps)
        self.mixer = Mamba(MambaConfig(d_model, config.expand, config.d_state, config.d_conv), reverse)

    def forward(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        y, state = self.mixer.residual(x[:, :, None], self.norm, 1, state)
        return y[:, :, 0], state

    def along(self, x: Tensor, axis: int) -> Tensor:
        return self.mixer.residual(x, self.norm, axis)[0]  # reads either axis in place


class BidirectionalMamba(Mixer):
    """One Mamba in each direction, each with its own norm and residual, joined 2 d -> d, and a residual around both."""

    def __init__(self, config: MixerConfig, d_model: int) -> None:
        super().__init__()
        self.forwards = MambaLayer(config, d_model)
        self.backwards = MambaLayer(config, d_model, reverse=True)
        self.fuse = nn.Linear(2 * d_model, d_model)

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        refuse_state(state)
        return self.along(x[:, :, None], 1)[:, :, 0], None

    def along(self, x: Tensor, axis: int) -> Tensor:
        first, second = self.forwards, self.backwards
        if backend_for(x) == "cpu":
            return joined_pair(x, axis, (first.mixer, first.norm), (second.mixer, second.norm), self.fuse)
        if backend_for(x) == "triton":
            pair = residual_pair(x, axis, (first.mixer, first.norm), (second.mixer, second.norm))
        else:
            pair = first.along(x, axis), second.along(x, axis)
        return x + self.fuse(torch.cat(pair, dim=-1))


class ChunkedMamba(BidirectionalMamba):
    """Two directions with a bounded look-ahead: the forward one carries on, the backward one starts anew in each chunk.

    A position sees no further than the end of its chunk, at most chunk - 1 positions ahead, and since the chunks of all
    layers coincide a stack of them sees no further either. The weights are those of `BidirectionalMamba`. A piece of a
    sequence could only go on from a state where a chunk begins, so a state is refused.
    """

    def __init__(self, config: MixerConfig, d_model: int) -> None:
        super().__init__(config, d_model)
        self.chunk = config.chunk

    def along(self, x: Tensor, axis: int) -> Tensor:
        if axis == 2:
            return Mixer.along(self, x, axis)
        if x.shape[1] == 0:
            return x
        whole = x.shape[1] - x.shape[1] % self.chunk
        chunks = x[:, :whole].unflatten(1, (-1, self.chunk)).flatten(0, 1)  # (B L / chunk, chunk, F, d)
        parts = [self.backwards.along(chunks, 1).reshape(x[:, :whole].shape)] if whole else []
        if whole < x.shape[1]:  # a shorter chunk; padding it would put something into its future
            parts.append(self.backwards.along(x[:, whole:], 1))
        return x + self.fuse(torch.cat([self.forwards.along(x, 1), torch.cat(parts, dim=1)], dim=-1))


class LstmState(NamedTuple):
    hidden: Tensor  # (1, B, d)
    cell: Tensor  # (1, B, d)


class LstmMixer(Mixer):
    """x + LSTM(RMSNorm(x)) with d hidden units; both directions are joined 2 d -> d."""

    def __init__(self, config: MixerConfig, d_model: int) -> None:
        super().__init__()
        self.bidirectional = config.bidirectional
        self.norm = RMSNorm(d_model, config.norm_eps)
        self.lstm = nn.LSTM(d_model, d_model, batch_first=True, bidirectional=config.bidirectional)
        self.fuse = nn.Linear(2 * d_model, d_model) if config.bidirectional else nn.Identity()

    def forward(self, x: Tensor, state: LstmState | None = None) -> tuple[Tensor, LstmState | None]:
        if self.bidirectional:
            refuse_state(state)
        y, memory = self.lstm(self.norm(x), state)
        return x + self.fuse(y), None if self.bidirectional else LstmState(*memory)


class AttentionState(NamedTuple):
    keys: Tensor  # (B, h, at most context - 1, e)
    values: Tensor


class Attention(nn.Module):
    """Multi-head self-attention with biased query, key, value and output maps (Vaswani et al. 2017).

    `context` None: every position sees all. Otherwise it sees itself and the context - 1 positions before it, so that
    memory and time per position stay bounded on endless signals. No positional encoding: the convolutions in front of
    it carry the local order (as in Fu et al. 2020, whose codec the basic model shares).
    """

    def __init__(self, d_model: int, heads: int, head_dim: int, context: int | None = None) -> None:
        super().__init__()
        self.heads, self.context = heads, context
        self.query = nn.Linear(d_model, heads * head_dim)
        self.key = nn.Linear(d_model, heads * head_dim)
        self.value = nn.Linear(d_model, heads * head_dim)
        self.out = nn.Linear(heads * head_dim, d_model)

    def forward(self, x: Tensor, state: AttentionState | None = None) -> tuple[Tensor, AttentionState | None]:
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, L, e)
            for layer in (self.query, self.key, self.value)
        )
        if self.context is None:
            refuse_state(state)
            y = F.scaled_dot_product_attention(query, key, value)
        else:
            if state is not None:
                key, value = torch.cat([state.keys, key], dim=2), torch.cat([state.values, value], dim=2)
            y = self._look_back(query, key, value, self.context)
            kept = min(self.context - 1, key.shape[2])
            state = AttentionState(key[:, :, key.shape[2] - kept :], value[:, :, value.shape[2] - kept :])
        return self.out(y.transpose(1, 2).flatten(2)), state

    def _look_back(self, query: Tensor, key: Tensor, value: Tensor, context: int) -> Tensor:
        """Banded attention; the last of (B, h, K, e) keys belongs to the last of (B, h, L, e) queries."""
        past, length = key.shape[2] - query.shape[2], query.shape[2]
        pieces = []
        for start in range(0, length, context):  # pieces keep the score matrix small on long signals
            stop = min(start + context, length)
            first = max(0, past + start - context + 1)
            rows = torch.arange(past + start, past + stop, device=query.device)[:, None]
            columns = torch.arange(first, past + stop, device=query.device)[None, :]
            visible = (columns <= rows) & (columns > rows - context)
            span = slice(first, past + stop)
            pieces.append(
                F.scaled_dot_product_attention(query[:, :, start:stop], key[:, :, span], value[:, :, span], visible)
            )
        return torch.cat(pieces, dim=2)


class Transformer(Mixer):
    """Pre-norm Transformer layer: attention, then a two-layer GELU network."""

    def __init__(self, config: MixerConfig, d_model: int) -> None:
        super().__init__()
        hidden = config.feedforward * d_model
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = Attention(
            d_model, config.heads, config.head_dim, None if config.bidirectional else config.context
        )
        self.feedforward_norm = nn.LayerNorm(d_model)
        self.feedforward = nn.Sequential(nn.Linear(d_model, hidden), nn.GELU(), nn.Linear(hidden, d_model))

    def forward(self, x: Tensor, state: AttentionState | None = None) -> tuple[Tensor, AttentionState | None]:
        y, state = self.attention(self.attention_norm(x), state)
        x = x + y
        return x + self.feedforward(self.feedforward_norm(x)), state


class Conformer(Mixer):
    """Conformer layer as MP-SENet uses it (Lu et al. 2023): half feed-forward, attention, convolution, half
    feed-forward, norm at the end, and a residual around the whole."""

    def __init__(self, config: MixerConfig, d_model: int) -> None:
        super().__init__()
        self.feedforward_in = _half_feedforward(d_model, config.feedforward * d_model)
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = nn.MultiheadAttention(d_model, config.heads, batch_first=True)
        self.convolution = ConformerConvolution(d_model, config.kernel)
        self.feedforward_out = _half_feedforward(d_model, config.feedforward * d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        refuse_state(state)
        y = x + 0.5 * self.feedforward_in(x)
        normed = self.attention_norm(y)
        y = y + self.attention(normed, normed, normed, need_weights=False)[0]
        y = y + self.convolution(y)
        y = y + 0.5 * self.feedforward_out(y)
        return x + self.norm(y), None


class ConformerConvolution(nn.Module):
    """Gated expansion to 2 d, depthwise convolution, BatchNorm, SiLU, back to d."""

    def __init__(self, d_model: int, kernel: int) -> None:
        super().__init__()
        inner = 2 * d_model
        self.norm = nn.LayerNorm(d_model)
        self.expand = nn.Conv1d(d_model, 2 * inner, 1)
        self.depthwise = nn.Conv1d(inner, inner, kernel, padding=kernel // 2, groups=inner)
        self.batch_norm = nn.BatchNorm1d(inner)
        self.project = nn.Conv1d(inner, d_model, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.expand(self.norm(x).transpose(1, 2)), dim=1)  # (B, 2 d, L)
        return self.project(F.silu(self.batch_norm(self.depthwise(y)))).transpose(1, 2)


def _half_feedforward(d_model: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, hidden), nn.SiLU(), nn.Linear(hidden, d_model))
