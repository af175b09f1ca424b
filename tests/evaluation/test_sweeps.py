"""Sweeps: what changes reaches its value, what should stay stays, sample by sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semamba.data.mixing import active_rms
from semamba.errors import SemambaError
from semamba.evaluation import sweeps
from semamba.evaluation.sets import open_material
from semamba.evaluation.sweeps import Material, parse_sweep, sweep_sets

RATE = 16000


@pytest.fixture(scope="module")
def material(pairs: Path) -> Material:
    return Material(open_material(str(pairs / "speech"), "speech"), open_material(str(pairs / "noise"), "noise"))


def test_parse() -> None:
    assert parse_sweep("snr=-5:20:5") == ("snr", (-5, 0, 5, 10, 15, 20))
    assert parse_sweep("room=0,0.5") == ("room", (0, 0.5))
    assert parse_sweep("length")[1][-1] == 90


@pytest.mark.parametrize(
    "text", ["colour", "snr=", "snr=a", "snr=0:1:0", "snr=5:0:1", "bandwidth=9", "level=3", "snr=nan"]
)
def test_parse_errors(text: str) -> None:
    with pytest.raises(SemambaError, match=f"sweep '{text}'"):
        parse_sweep(text)


def test_snr_is_reached_and_nothing_else_changes(material: Material) -> None:
    quiet, loud = sweep_sets(material, "snr", (20, 0), 3)
    assert [s.name for s in (quiet, loud)] == ["snr 20 dB", "snr 0 dB"]
    for first, second in zip(quiet.items, loud.items, strict=True):
        (clean, noisy, _), (other, noisier, _) = first.load(), second.load()
        scale = np.linalg.norm(clean) / np.linalg.norm(other)
        assert np.allclose(clean, other * scale, atol=1e-6)
        assert np.allclose((noisier - other) * scale, 10 * (noisy - clean), atol=1e-5)
        for value, (speech, mixture) in {20: (clean, noisy), 0: (other, noisier)}.items():
            ratio = active_rms(speech, RATE) / active_rms(mixture - speech, RATE)
            assert 20 * np.log10(ratio) == pytest.approx(value, abs=0.01)
    assert {item.factors["noise"] for item in loud.items} == {"rain", "wind", "hiss"}
    assert [item.factors["snr"] for item in quiet.items] == [20, 20, 20]


def test_the_same_seed_gives_the_same_samples(material: Material) -> None:
    first, again = (sweep_sets(material, "snr", (0,), 2)[0].items[1].load() for _ in range(2))
    assert np.array_equal(first[1], again[1])
    other = sweep_sets(Material(material.speech, material.noise, seed=1), "snr", (0,), 3)[0]
    assert not any(np.array_equal(item.load()[1], first[1]) for item in other.items)


def test_level(material: Material) -> None:
    for test_set, level in zip(sweep_sets(material, "level", (-50, -30), 2), (-50, -30), strict=True):
        _, noisy, _ = test_set.items[0].load()
        assert 10 * np.log10(np.mean(np.square(noisy))) == pytest.approx(level, abs=0.01)


def test_bandwidth(material: Material) -> None:
    narrow, wide = (s.items[1].load() for s in sweep_sets(material, "bandwidth", (2, 8), 2))
    for wave in narrow[:2]:
        power = np.abs(np.fft.rfft(wave)) ** 2
        above = power[round(2400 / RATE * len(wave)) :].sum() / power.sum()
        assert above < 1e-5
    assert (np.abs(np.fft.rfft(wide[1])) ** 2)[len(wide[1]) // 4 :].sum() > 0


def test_rooms_grow(material: Material) -> None:
    """Energy late after the last syllable grows with the reverberation time; the target keeps the room."""
    dry, short, long = (s.items[0].load()[0] for s in sweep_sets(material, "room", (0, 0.2, 0.8), 1))
    steps = [np.square(np.diff(wave)) for wave in (dry, short, long)]
    late = [float(step[3400:6000].sum() / step.sum()) for step in steps]
    assert late[0] < late[1] < late[2]


def test_length(material: Material) -> None:
    for test_set, seconds in zip(sweep_sets(material, "length", (0.5, 5), 2), (0.5, 5), strict=True):
        clean, noisy, rate = test_set.items[0].load()
        assert len(clean) == len(noisy) == seconds * rate
        assert test_set.items[0].text == ""


def test_without_recorded_noise_rules_remain(material: Material) -> None:
    assert sweeps.noise_kinds(Material(material.speech)) == list(sweeps.RULES)
    with pytest.raises(SemambaError, match="needs utterances"):
        Material(())


def test_speakers_may_share_names_of_files(material: Material) -> None:
    twins = tuple(replace(entry, path=entry.path.parent / str(i) / "u.wav") for i, entry in enumerate(material.speech))
    (made,) = sweep_sets(replace(material, speech=twins, noise=()), "snr", (5,), len(twins))
    names = [item.name for item in made.items]
    assert len(set(names)) == len(names) == 3 and {Path(name).stem for name in names} == {"u"}
