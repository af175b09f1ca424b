"""A larger causal model that begins as a smaller trained one: more channels, heads, blocks, frames; the same output.

After Chen et al. 2016 ("Net2Net"), with zeros in place of copies. Letters: C codec channels, d block channels,
D = expand d inner channels, R rank of delta, N state size.

Every weight keeps the given values in its old corner. What is new starts as in a fresh model, except where it would
reach an old value: channels added to the stream of residuals are written with zero and read at random, inner channels
added to a layer are written at random and read with zero. One of the two is never zero, so all of it learns at once.
Norms see more channels with the same sum of squares, which their weights make good for.

Half the hop, twice the frames, is the one way that gives nearly the same output instead of the same. A state decays and
takes in by exp(delta A) and delta B for each frame (Gu and Dao 2023, section 2), so half of delta keeps both for each
second. The convolution's newest weight stays with the newest frame, that of the frame before is shared by the two in
its place, and the oldest frame takes the other two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semamba.errors import SemambaError
from semamba.models.causal import CausalConfig, CausalModel
from semamba.models.mamba import MambaConfig, inverse_softplus


class Weight(NamedTuple):
    """How a weight grows: each axis as sizes side by side ("" does not grow), and the axes whose added part is zero."""

    axes: tuple[tuple[str, ...], ...]
    zero: tuple[int, ...] = ()
    norm: bool = False


_MAMBA = r"blocks\.\d+\.(?:time|frequency\.up|frequency\.down)\."
_WEIGHTS: dict[str, Weight] = {
    r"encode_in\.weight": Weight((("C",), ("",)), zero=(0,)),
    r"encode_in\.bias": Weight((("C",),), zero=(0,)),
    r"band_bias": Weight((("",), ("C",)), zero=(1,)),
    r"(?:encoder|decoder)\.\d+\.norm\.weight|decode_norm\.weight": Weight((("C",),), norm=True),
    r"(?:encoder|decoder)\.\d+\.conv\.weight": Weight((("C",), ("C", "C", "C")), zero=(0,)),
    r"(?:encoder|decoder)\.\d+\.conv\.bias": Weight((("C",),), zero=(0,)),
    r"down\.channels\.weight": Weight((("d",), ("C",)), zero=(0,)),
    r"down\.channels\.bias": Weight((("d",),), zero=(0,)),
    r"sub_band_bias": Weight((("",), ("d",)), zero=(1,)),
    r"up\.channels\.weight": Weight((("C",), ("d",)), zero=(0,)),
    r"up\.channels\.bias": Weight((("C",),), zero=(0,)),
    r"decode_out\.weight": Weight((("",), ("C",))),
    r"blocks\.\d+\.(?:time|frequency)_norm\.weight": Weight((("d",),), norm=True),
    _MAMBA + r"in_proj\.weight": Weight((("D", "D"), ("d",))),
    _MAMBA + r"conv1d\.weight": Weight((("D",), ("",), ("",))),
    _MAMBA + r"(?:conv1d\.bias|dt_proj\.bias|D)": Weight((("D",),)),
    _MAMBA + r"x_proj\.weight": Weight((("R", "N", "N"), ("D",)), zero=(1,)),
    _MAMBA + r"dt_proj\.weight": Weight((("D",), ("R",)), zero=(1,)),
    _MAMBA + r"A_log": Weight((("D",), ("N",))),
    _MAMBA + r"out_proj\.weight": Weight((("d",), ("D",)), zero=(0, 1)),
    r"blocks\.\d+\.frequency\.qkv\.weight": Weight((("d", "d", "d"), ("d",))),
    r"blocks\.\d+\.frequency\.qkv\.bias": Weight((("d", "d", "d"),)),
    r"blocks\.\d+\.frequency\.out\.weight": Weight((("d",), ("d",)), zero=(0, 1)),
    r"blocks\.\d+\.frequency\.out\.bias": Weight((("d",),), zero=(0,)),
}


def grow(model: CausalModel, config: CausalConfig, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of freshly made `model` that enhances as the weights `given` of a model of `config` do, or nearly so
    where it has half the hop.

    Raises SemambaError naming the setting in which the two differ other than in size, or in which `model` is smaller.
    """
    old, new = _sizes(config), _sizes(model.config)
    _check(config, model.config, old, new)
    model.pass_through(config.blocks)
    state = {}
    for name, fresh in model.state_dict().items():
        fresh = fresh.cpu()  # where the given weights are
        rule = next((rule for pattern, rule in _WEIGHTS.items() if re.fullmatch(pattern, name)), None)
        if name not in given:  # of an added block
            state[name] = fresh
        elif rule is None:  # grows with nothing
            state[name] = given[name].to(fresh.dtype)
        else:
            state[name] = _grown(fresh, given[name].to(fresh.dtype), rule, old, new)
        if name in given and model.stft.hop_length < config.stft.hop_length:
            state[name] = _twice_as_often(name, state[name])
    return state | {name: value for name, value in given.items() if name not in state}


def _sizes(config: CausalConfig) -> dict[str, int]:
    layer = MambaConfig(config.d_model, config.expand, config.d_state)
    return {"C": config.channels, "d": config.d_model, "D": layer.d_inner, "R": layer.dt_rank, "N": config.d_state}


def _check(old: CausalConfig, new: CausalConfig, had: Mapping[str, int], has: Mapping[str, int]) -> None:
    halved = replace(old, stft=replace(old.stft, hop_length=old.stft.hop_length // 2))
    if new.stft == halved.stft and not old.stft.hop_length % 2:
        old = halved
    for key in ("stft", "stride", "layers", "sub_bands", "d_state", "frequency", "level_seconds", "output"):
        if getattr(old, key) != getattr(new, key):
            raise SemambaError(
                f"model.{key}: {getattr(old, key)} in the weights given, not {getattr(new, key)}; "
                "a model grows in channels, d_model, heads, expand and blocks, and its hop_length may be halved"
            )
    if any(has[size] < had[size] for size in had) or new.blocks < old.blocks:
        raise SemambaError("the weights given are of a larger model; channels, d_model, expand, blocks may only grow")
    if new.frequency == "attention" and old.d_model * new.heads != new.d_model * old.heads:
        heads = new.d_model * old.heads / old.d_model
        raise SemambaError(f"model.heads: must be {heads:g}, to keep the size of a head of the weights given")


def _grown(fresh: Tensor, given: Tensor, rule: Weight, old: Mapping[str, int], new: Mapping[str, int]) -> Tensor:
    """`given` in its places of `fresh`, the added part as the rule says."""
    places = [_places(axis, length, old, new) for axis, length in zip(rule.axes, given.shape, strict=True)]
    grown = fresh.clone()
    for axis in rule.zero:
        added = torch.ones(grown.shape[axis], dtype=torch.bool)
        added[places[axis]] = False
        grown.index_fill_(axis, added.nonzero()[:, 0], 0.0)
    scale = (given.shape[0] / fresh.shape[0]) ** 0.5 if rule.norm else 1.0
    grown[torch.meshgrid(*places, indexing="ij")] = scale * given
    return grown


def _twice_as_often(name: str, weight: Tensor) -> Tensor:
    """A weight of a layer along time for frames that come twice as often; other weights as they are."""
    if re.fullmatch(r"blocks\.\d+\.time\.dt_proj\.bias", name):
        return inverse_softplus(F.softplus(weight) / 2)
    if re.fullmatch(r"blocks\.\d+\.time\.conv1d\.weight", name):
        oldest, older, before, newest = weight.unbind(-1)
        return torch.stack([oldest + older, before / 2, before / 2, newest], -1)
    return weight


def _places(axis: Sequence[str], length: int, old: Mapping[str, int], new: Mapping[str, int]) -> Tensor:
    """Where the entries of an old axis stand on the new one."""
    if axis == ("",):
        return torch.arange(length)
    parts, start = [], 0
    for size in axis:
        parts.append(start + torch.arange(old[size]))
        start += new[size]
    return torch.cat(parts)
