"""Streamer: any blocks, any rate, two modes; the delay that is stated is the delay there is."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import semamba
from semamba.errors import SemambaError
from semamba.inference.engine import Engine, Options
from semamba.inference.enhance import Enhancer
from semamba.inference.stream import Streamer
from semamba.models.basic import BasicConfig, BasicModel
from semamba.models.mixers import MixerConfig

from ..conftest import REPOSITORY
from .conftest import make_scale

RATES = (8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000)
sizes = st.lists(st.integers(0, 1500), min_size=1, max_size=8)
quick = settings(max_examples=12, deadline=None)


def noise(channels: int, frames: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, frames)) * 0.1).astype(np.float32)


def blocks(wave: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    """The wave in blocks of these sizes, over and over."""
    start, turn = 0, 0
    sizes = [*sizes, 333]  # not all are zero
    while start < wave.shape[-1]:
        size = sizes[turn % len(sizes)]
        yield wave[..., start : start + size]
        start, turn = start + size, turn + 1


def through(streamer: Streamer, wave: np.ndarray, sizes: list[int]) -> np.ndarray:
    return np.concatenate([*(streamer.feed(block) for block in blocks(wave, sizes)), streamer.flush()], axis=-1)


@pytest.fixture(scope="session")
def tiny_basic() -> Enhancer:
    torch.manual_seed(0)
    stft = replace(BasicConfig().stft, framing="causal", window="sqrt_hann")
    mixer = MixerConfig("mamba", d_state=4, bidirectional=False)
    return Enhancer(BasicModel(BasicConfig(stft=stft, channels=(8, 8), mixer=mixer, blocks=1)), "cpu")


@pytest.mark.parametrize("name", ["tiny", "tiny_basic"])
@given(sizes=sizes, rate=st.sampled_from(RATES), channels=st.integers(1, 2), seed=st.integers(0, 99))
@quick
def test_blocks_together_are_the_offline_result(
    request: pytest.FixtureRequest, name: str, sizes: list[int], rate: int, channels: int, seed: int
) -> None:
    enhancer = request.getfixturevalue(name)
    wave = noise(channels, 9000 + 37 * seed, seed)
    made = through(Streamer(enhancer, rate, channels), wave, sizes)
    assert made.shape == wave.shape
    assert np.allclose(made, enhancer(wave, rate), atol=1e-4)


@given(sizes=sizes, rate=st.sampled_from(RATES), bandwidth=st.sampled_from(["full", "model"]))
@quick
def test_fixed_mode_gives_as_much_as_it_takes(tiny: Enhancer, sizes: list[int], rate: int, bandwidth: Any) -> None:
    wave = noise(2, 9001)
    streamer = Streamer(tiny, rate, 2, "fixed", bandwidth=bandwidth)
    made = []
    for block in blocks(wave, sizes):
        made.append(streamer.feed(block))
        assert made[-1].shape == block.shape
    made.append(streamer.flush())
    late, joined = streamer.latency_samples, np.concatenate(made, axis=1)
    assert made[-1].shape[1] == late and not joined[:, :late].any()
    assert np.allclose(joined[:, late:], tiny(wave, rate, bandwidth=bandwidth), atol=1e-4)


@pytest.mark.parametrize("bandwidth", ["full", "model"])
@pytest.mark.parametrize("rate", RATES)
def test_an_impulse_comes_out_after_the_stated_latency(rate: int, bandwidth: Any) -> None:
    streamer = Streamer(make_scale(True), rate, mode="fixed", bandwidth=bandwidth)
    wave = np.zeros(rate // 2, np.float32)
    wave[rate // 5] = 0.5
    made = through(streamer, wave, [77, 1, 400])
    assert np.abs(made).argmax() - rate // 5 == streamer.latency_samples


CASES = [(16_000, 1), (16_000, 256), (44_100, 1), (48_000, 384), (22_050, 7), (8000, 1), (11_025, 64)]


@pytest.mark.parametrize("bandwidth", ["full", "model"])
@pytest.mark.parametrize(("rate", "block"), CASES)
def test_the_stated_latency_is_what_is_held_back_at_most(rate: int, block: int, bandwidth: Any) -> None:
    """In exact mode, in blocks as small as allowed; so fixed mode could not promise less."""
    streamer = Streamer(EchoEnhancer(), rate, bandwidth=bandwidth, block=block)
    held = most = 0
    for _ in range(rate // 6 if block == 1 else 3 * rate // block):
        held += block - streamer.feed(np.zeros(block, np.float32)).shape[0]
        most = max(most, held)
    assert most == streamer.latency_samples


@pytest.mark.parametrize("rate", [16_000, 48_000])
@given(at=st.integers(3000, 9000))
@quick
def test_the_future_does_not_change_the_past(tiny: Enhancer, rate: int, at: int) -> None:
    """Input from `at` on is another: nothing that came out before differs, and soon something does."""
    wave, other = noise(1, 14_000), noise(1, 14_000, seed=1)
    other[:, :at] = wave[:, :at]
    first, second = Streamer(tiny, rate, mode="fixed"), Streamer(tiny, rate, mode="fixed")
    one, two = through(first, wave, [160]), through(second, other, [160])
    changed = np.flatnonzero(np.any(one != two, axis=0))
    block_of_at = at // 160 * 160  # a block comes out when all of it went in
    assert block_of_at <= changed[0] <= at + first.latency_samples


@given(cut=st.integers(1, 19), seed=st.integers(0, 9))
@quick
def test_every_layer_carries_its_state(tiny: Enhancer, cut: int, seed: int) -> None:
    """Each block of the causal family, cut anywhere, to 1e-4."""
    torch.manual_seed(seed)
    config = tiny.model.config
    x = torch.randn(2, 20, config.sub_bands, config.d_model)
    with torch.inference_mode():
        for layer in tiny.model.blocks:
            whole, last = layer(x)
            first, state = layer(x[:, :cut])
            second, state = layer(x[:, cut:], state)
            assert torch.allclose(torch.cat([first, second], dim=1), whole, atol=1e-4)
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(state, last, strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_blocks_come_back_as_they_were_given(tiny: Enhancer, dtype: Any) -> None:
    wave = noise(1, 3000)[0]
    given_ = (wave * 32768).astype(dtype) if dtype == np.int16 else wave.astype(dtype)
    streamer = Streamer(tiny)
    parts = [streamer.feed(block) for block in blocks(given_, [500])]
    parts.append(streamer.flush())
    assert {part.dtype for part in parts} == {np.dtype(dtype)} and {part.ndim for part in parts} == {1}
    assert np.allclose(np.concatenate(parts), tiny(given_), atol=1 if dtype == np.int16 else 1e-5)
    tensors = [streamer.feed(torch.from_numpy(given_)), streamer.flush()]
    assert all(isinstance(part, torch.Tensor) for part in tensors)
    assert np.array_equal(torch.cat(tensors).numpy(), tiny(given_))


def test_reset_and_flush_start_afresh(tiny: Enhancer) -> None:
    wave = noise(1, 5000)
    for mode in ("exact", "fixed"):
        streamer = Streamer(tiny, mode=mode)  # type: ignore[arg-type]
        first = through(streamer, wave, [700])
        assert np.array_equal(through(streamer, wave, [700]), first)
        streamer.feed(wave[:, :1234])
        streamer.reset()
        assert np.array_equal(through(streamer, wave, [700]), first)


def test_options_reach_the_engine(tiny: Enhancer) -> None:
    wave = noise(1, 6000)
    assert np.array_equal(through(Streamer(tiny, mix=0.0), wave, [999]), wave)
    limited = through(Streamer(tiny, attenuation_limit=6.0), wave, [999])
    assert np.allclose(limited, tiny(wave, attenuation_limit=6.0), atol=1e-5)


def test_odd_samples_are_counted(tiny: Enhancer) -> None:
    wave = noise(1, 3000)
    wave[0, 7] = np.nan
    streamer = Streamer(tiny)
    assert np.isfinite(streamer.feed(wave)).all() and (streamer.invalid, streamer.replaced) == (1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "slow"}, "mode"),
        ({"channels": 0}, "channels"),
        ({"block": 0}, "block"),
        ({"sample_rate": 0}, "sample rate"),
        ({"mix": 2.0}, "mix"),
        ({"model": "nobody"}, "nobody"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SemambaError, match=message):
        Streamer(**options)


def test_blocks_that_do_not_fit_are_refused(tiny: Enhancer) -> None:
    with pytest.raises(SemambaError, match="2 channels, got 1"):
        Streamer(tiny, channels=2).feed(np.zeros(100, np.float32))
    with pytest.raises(SemambaError, match="multiples of 256"):
        Streamer(tiny, block=256).feed(np.zeros(100, np.float32))


def test_models_that_need_the_future_are_refused_by_name() -> None:
    enhancer = Enhancer(make_scale(False), "cpu", "advanced-mamba")
    with pytest.raises(SemambaError, match="'advanced-mamba' needs the future.*causal-small"):
        Streamer(enhancer)


def test_the_default_model_streams() -> None:
    streamer = semamba.Streamer()
    wave = noise(1, 8000)
    assert streamer.latency_samples == 511 and streamer.latency_seconds == 511 / 16_000
    assert np.allclose(through(streamer, wave, [256]), semamba.load(device="cpu")(wave), atol=1e-4)


class Echo:
    """A core without a model: whole hops come out as they went in, a hop late."""

    causal, hop, replaced = True, 256, 0

    def __init__(self, channels: int) -> None:
        self._waiting = np.zeros((channels, 256), np.float32)
        self._skip = 256

    def ready(self, taken: Any) -> Any:
        return np.maximum(0, taken // 256 * 256 - 256)

    def push(self, block: np.ndarray) -> np.ndarray:
        waiting = np.concatenate([self._waiting, block], axis=1)
        whole = block.shape[1] and waiting.shape[1] // 256 * 256 - 256
        whole = max(0, whole)
        done, self._waiting = waiting[:, :whole], waiting[:, whole:]
        skip, self._skip = min(self._skip, whole), self._skip - min(self._skip, whole)
        return done[:, skip:]


class EchoEnhancer:
    def engine(self, channels: int, sample_rate: int, options: Options) -> Engine:
        return Engine(Echo(channels), channels, sample_rate, options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate", "mode", "size", "count"), [(16_000, "fixed", 256, 20_000), (48_000, "exact", 640, 500)]
)
def test_nothing_grows(rate: int, mode: Any, size: int, count: int) -> None:
    """What the streamer holds, and memory, stay what they were after a tenth of the blocks."""
    streamer, block = Streamer(EchoEnhancer(), rate, mode=mode), noise(1, size)
    for _ in range(count // 10):
        streamer.feed(block)
    gc.collect()
    objects = held_by(streamer)
    tracemalloc.start(1)
    for index in range(count * 9 // 10):
        streamer.feed(block)
        if index == count // 10:
            before = tracemalloc.get_traced_memory()[0]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 50_000 and 20 < held_by(streamer) <= objects


def held_by(root: object) -> int:
    """How many objects can be reached from it; other threads of the process make and drop their own meanwhile."""
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        found = waiting.pop()
        if id(found) not in seen and not isinstance(found, (type, ModuleType, FunctionType)):
            seen[id(found)] = found
            waiting += gc.get_referents(found)
    return len(seen)


def test_the_state_of_a_model_keeps_its_size(tiny: Enhancer) -> None:
    def tensors() -> tuple[int, int]:
        gc.collect()
        alive = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
        return len(alive), sum(tensor.numel() for tensor in alive)

    streamer, block, seen = Streamer(tiny), noise(1, 256), []
    for count in range(301):
        streamer.feed(block)
        if count in (50, 300):
            seen.append(tensors())
    assert seen[0] == seen[1]


def test_the_example_of_the_documentation_runs() -> None:
    text = (REPOSITORY / "docs" / "streaming.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(code, "docs/streaming.md", "exec"), {})


def test_the_front_door_stays_light() -> None:
    script = "import semamba, sys; assert 'Streamer' in dir(semamba); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
