"""Mixers: direction, state, and equality with plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semamba.errors import SemambaError
from semamba.models.mixers import Attention, BidirectionalMamba, ChunkedMamba, MixerConfig, Transformer, build_mixer

KINDS = ("mamba", "lstm", "transformer")


def small(kind: str, bidirectional: bool) -> MixerConfig:
    sizes = {"expand": 2, "d_state": 4, "heads": 2, "head_dim": 4, "context": 5, "kernel": 3}
    return MixerConfig(kind, bidirectional, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 16), max_size=5), seed=st.integers(0, 100))
def test_splitting_a_sequence_changes_nothing(kind: str, cuts: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    mixer = build_mixer(small(kind, bidirectional=False), 8).eval()
    x = torch.randn(2, 17, 8)
    edges = [0, *sorted(set(cuts)), 17]
    with torch.no_grad():
        whole, _ = mixer(x)
        state, pieces = None, []
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            y, state = mixer(x[:, start:stop], state)
            pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_directional_mixers_do_not_see_the_future(kind: str) -> None:
    mixer = build_mixer(small(kind, bidirectional=False), 8).eval()
    x = torch.randn(1, 12, 8)
    changed = x.clone()
    changed[:, 7:] = torch.randn(1, 5, 8)
    torch.testing.assert_close(mixer(changed)[0][:, :7], mixer(x)[0][:, :7])


@pytest.mark.parametrize("kind", [*KINDS, "conformer"])
def test_bidirectional_mixers_see_everything_and_refuse_a_state(kind: str) -> None:
    torch.manual_seed(0)
    mixer = build_mixer(small(kind, bidirectional=True), 8).eval()
    x = torch.randn(1, 6, 8)
    for position in (0, 5):
        changed = x.clone()
        changed[:, position] = torch.randn(8)
        reach = (mixer(changed)[0] - mixer(x)[0]).abs().amax(dim=(0, 2))
        assert (reach > 0).all()
    assert mixer(x)[1] is None
    with pytest.raises(ValueError, match="needs the future"):
        mixer(x, object())


def test_a_causal_conformer_is_refused_by_name() -> None:
    with pytest.raises(SemambaError, match="mixer.bidirectional"):
        build_mixer(MixerConfig("conformer", bidirectional=False), 8)


def test_the_backward_mamba_equals_a_flipped_forward_one() -> None:
    mixer = build_mixer(small("mamba", bidirectional=True), 8).eval()
    assert isinstance(mixer, BidirectionalMamba)
    x = torch.randn(2, 9, 8)
    mixer.backwards.mixer.reverse = False
    flipped = mixer.backwards(x.flip(1))[0].flip(1)
    mixer.backwards.mixer.reverse = True
    torch.testing.assert_close(mixer.backwards(x)[0], flipped, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [*KINDS, "conformer"])
def test_mixing_features_along_an_axis_is_mixing_their_sequences(kind: str) -> None:
    mixer = build_mixer(small(kind, bidirectional=True), 8).eval()
    x = torch.randn(2, 5, 3, 8)
    with torch.no_grad():
        columns = torch.stack([mixer(x[:, :, i])[0] for i in range(3)], dim=2)
        rows = torch.stack([mixer(x[:, i])[0] for i in range(5)], dim=1)
        torch.testing.assert_close(mixer.along(x, 1), columns, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mixer.along(x, 2), rows, atol=1e-5, rtol=1e-5)


def test_attention_looks_back_over_its_context_only() -> None:
    torch.manual_seed(0)
    attention = Attention(8, heads=2, head_dim=4, context=5).eval()
    x = torch.randn(1, 13, 8)
    q, k, v = (layer(x).unflatten(-1, (2, 4)) for layer in (attention.query, attention.key, attention.value))
    expected = torch.zeros(1, 13, 2, 4)
    for t in range(13):
        seen = slice(max(0, t - 4), t + 1)
        scores = torch.einsum("bhe,bshe->bhs", q[:, t], k[:, seen]) / math.sqrt(4)
        expected[:, t] = torch.einsum("bhs,bshe->bhe", scores.softmax(-1), v[:, seen])
    torch.testing.assert_close(attention(x)[0], attention.out(expected.flatten(2)), atol=1e-6, rtol=1e-5)


def test_attention_remembers_a_bounded_past() -> None:
    mixer = Transformer(small("transformer", bidirectional=False), 8).eval()
    state = None
    for length in (3, 1, 9, 2):
        _, state = mixer(torch.randn(1, length, 8), state)
        assert state is not None and state.keys.shape[2] <= 4


def chunked(chunk: int) -> ChunkedMamba:
    torch.manual_seed(0)
    mixer = build_mixer(MixerConfig("mamba", True, expand=2, d_state=4, chunk=chunk), 8).eval()
    assert isinstance(mixer, ChunkedMamba)
    return mixer


@pytest.mark.parametrize(("chunk", "length"), [(4, 12), (4, 14), (5, 3), (1, 4)])
def test_a_chunked_mixer_sees_to_the_end_of_the_chunk_and_no_further(chunk: int, length: int) -> None:
    mixer = chunked(chunk)
    x = torch.randn(2, length, 8)
    with torch.no_grad():
        before = mixer(mixer(x)[0])[0]  # a stack: the chunks coincide
        for position in range(length):
            changed = x.clone()
            changed[:, position] += torch.randn(8)
            difference = (mixer(mixer(changed)[0])[0] - before).abs().amax(dim=(0, 2))
            begin = position - position % chunk
            assert (difference[:begin] == 0).all()
            assert (difference[begin:] > 0).all()


def test_a_chunk_of_the_whole_sequence_is_no_chunk() -> None:
    mixer, whole = chunked(9), build_mixer(MixerConfig("mamba", True, expand=2, d_state=4), 8).eval()
    whole.load_state_dict(mixer.state_dict())
    x = torch.randn(2, 9, 3, 8)
    torch.testing.assert_close(mixer(x[:, :, 0])[0], whole(x[:, :, 0])[0])
    torch.testing.assert_close(mixer.along(x, 1), whole.along(x, 1))
    torch.testing.assert_close(mixer.along(x, 2), whole.along(x, 2))  # three bins lie in one chunk


def test_a_chunked_mixer_refuses_a_state() -> None:
    with pytest.raises(ValueError, match="cannot continue from a state"):
        chunked(4)(torch.randn(1, 4, 8), object())  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [
    MixerConfig("mamba", False, chunk=4), MixerConfig("lstm", chunk=4), MixerConfig("mamba", chunk=-1)
])  # fmt: skip
def test_a_chunk_where_it_means_nothing_is_refused_by_name(config: MixerConfig) -> None:
    with pytest.raises(SemambaError, match="mixer.chunk"):
        build_mixer(config, 8)


def test_a_chunked_mixer_of_nothing() -> None:
    assert chunked(4)(torch.randn(1, 0, 8))[0].shape == (1, 0, 8)
