"""Controlled sweeps: the same utterances with the same noise, while one thing changes.

Letters: n samples. The utterance, its stretch of noise and its room depend on the seed and the utterance's number
alone, so two conditions of a sweep differ in nothing but the factor, and models may be compared pair by pair.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from semamba.data import filters, noise, rooms
from semamba.data.manifest import Entry
from semamba.data.mixing import noise_gain
from semamba.data.reading import read_float
from semamba.errors import SemambaError
from semamba.evaluation.sets import Item, Recording, TestSet, Wave

RATE = 16_000  # Hz
PEAK = 0.99


@dataclass(frozen=True)
class Condition:
    """How a pair is made; what a sweep does not change stays as here."""

    snr: float = 5.0  # dB, active speech to active noise
    room: float = 0.0  # reverberation time in s, 0: none; the target keeps its room
    level: float = math.nan  # dBFS (RMS of the mixture), NaN: as recorded
    bandwidth: float = 8.0  # kHz of speech and noise
    length: float = 0.0  # s, by joining or cutting utterances; 0: one utterance


@dataclass(frozen=True)
class Axis:
    """What a sweep may change, its unit and its usual values."""

    unit: str
    values: tuple[float, ...]
    lowest: float
    highest: float


AXES = {
    "snr": Axis("dB", (-5, 0, 5, 10, 15, 20), -60, 100),
    "room": Axis("s", (0, 0.2, 0.4, 0.6, 0.8), 0, 3),
    "level": Axis("dBFS", (-50, -40, -30, -20, -10), -100, 0),
    "bandwidth": Axis("kHz", (2, 3, 4, 6, 8), 0.5, 8),
    "length": Axis("s", (1, 2, 5, 10, 30, 60, 90), 0.3, 3600),
}
# Noises made by rule, beside the recorded ones.
RULES = {"hiss": noise.coloured, "hum": noise.hum, "clicks": noise.clicks, "chirps": noise.chirps}


@dataclass(frozen=True)
class Material:
    """What is mixed: utterances, recorded noise (may be empty), and the seed of all else."""

    speech: tuple[Entry, ...]
    noise: tuple[Entry, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.speech:
            raise SemambaError("a sweep needs utterances: give --speech FOLDER or MANIFEST.csv@SPLIT")


def parse_sweep(text: str) -> tuple[str, tuple[float, ...]]:
    """Axis and values of `snr`, `snr=-5,0,5` or `snr=-5:20:5` (last value included). Raises SemambaError."""
    name, separator, values = text.partition("=")
    axis = AXES.get(name)
    if axis is None:
        raise SemambaError(f"sweep '{text}': no such factor; there are {', '.join(AXES)}")
    if not separator:
        return name, axis.values
    try:
        if ":" in values:
            first, last, step = (float(part) for part in values.split(":"))
            count = math.floor((last - first) / step + 1e-9) + 1
            chosen = tuple(first + index * step for index in range(count))
        else:
            chosen = tuple(float(part) for part in values.split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise SemambaError(f"sweep '{text}': write values as a,b,c or FIRST:LAST:STEP") from None
    if not chosen or len(chosen) > 100 or not all(axis.lowest <= value <= axis.highest for value in chosen):
        raise SemambaError(f"sweep '{text}': 1 to 100 values from {axis.lowest:g} to {axis.highest:g} {axis.unit}")
    return name, chosen


def sweep_sets(material: Material, name: str, values: Sequence[float], count: int) -> list[TestSet]:
    """One set for each value, of `count` utterances each, spread over the noises in turn."""
    order = np.random.default_rng([material.seed, 1]).permutation(len(material.speech))[:count]
    sets = []
    for value in values:
        condition = replace(Condition(), **{name: float(value)})
        title = f"{name} {value:g} {AXES[name].unit}"
        items = tuple(_item(material, condition, name, value, turn, int(index)) for turn, index in enumerate(order))
        sets.append(TestSet(title, items))
    return sets


def _item(material: Material, condition: Condition, name: str, value: float, turn: int, index: int) -> Item:
    """`turn` counts the utterances of the sweep, `index` is the utterance's place in the material."""
    entry = material.speech[index]
    kind = noise_kinds(material)[turn % len(noise_kinds(material))]
    whole = name != "length"  # several utterances in a row are not what the text says
    return Item(
        f"{name}={value:g}/{kind}/{index}/{entry.path.stem}",  # speakers may share names of files
        partial(mix, material, condition, index, kind),
        {name: value, "noise": kind},
        entry.text if whole else "",
    )


def noise_kinds(material: Material) -> list[str]:
    """Recorded kinds of noise (file name without its number), then the ones made by rule."""
    recorded = dict.fromkeys(_kind(entry) for entry in material.noise)
    return [*recorded, *RULES]


def mix(material: Material, condition: Condition, index: int, kind: str) -> Recording:
    """Clean and noisy (n,) at 16 kHz. Raises SemambaError when a recording cannot be read."""
    rng = np.random.default_rng([material.seed, 2, index])
    clean = _speech(material, index, condition.length)
    background = _noise(material, kind, len(clean), rng)
    if condition.room:
        clean = _reverberate(clean, condition.room, material.seed, index)
    if condition.bandwidth < RATE / 2000:
        clean, background = (_low_pass(wave, condition.bandwidth * 1000) for wave in (clean, background))
    noisy = clean + background * noise_gain(clean, background, condition.snr, RATE)
    gain = min(1.0, PEAK / max(float(np.abs(noisy).max()), 1e-9))
    if not math.isnan(condition.level):
        rms = float(np.sqrt(np.mean(np.square(noisy))))
        gain = min(10 ** (condition.level / 20) / max(rms, 1e-9), PEAK / max(float(np.abs(noisy).max()), 1e-9))
    return (clean * np.float32(gain)).astype(np.float32), (noisy * np.float32(gain)).astype(np.float32), RATE


def _speech(material: Material, index: int, seconds: float) -> Wave:
    entry = material.speech[index]
    wave = read_float(entry.path, RATE)
    if not seconds:
        return wave
    size = round(seconds * RATE)
    same_voice = [e for e in material.speech if e.speaker == entry.speaker and e is not entry] or [entry]
    parts, turn = [wave], 0
    while sum(len(part) for part in parts) < size:
        parts.append(read_float(same_voice[(index + turn) % len(same_voice)].path, RATE))
        turn += 1
    return np.concatenate(parts)[:size]


def _noise(material: Material, kind: str, size: int, rng: np.random.Generator) -> Wave:
    if kind in RULES:
        return RULES[kind](rng, size, RATE)
    entries = [entry for entry in material.noise if _kind(entry) == kind]
    wave = read_float(entries[int(rng.integers(len(entries)))].path, RATE)
    return np.resize(np.roll(wave, -int(rng.integers(len(wave)))), size)


def _reverberate(clean: Wave, seconds: float, seed: int, index: int) -> Wave:
    """In a simulated room of that reverberation time; the reflections are the same for every time."""
    rng = np.random.default_rng([seed, 3, index])
    length = math.ceil(seconds) * RATE
    response = rooms.simulate(rng, length, RATE, seconds)
    padded = np.concatenate([np.zeros(length, np.float32), clean])
    return rooms.reverberate(padded, response, len(clean), length)[0]


def _low_pass(wave: Wave, cutoff: float) -> Wave:
    return filters.resample_filter(wave, len(wave), filters.low_pass(len(wave), RATE, cutoff))


def _kind(entry: Entry) -> str:
    return re.sub(r"[\W_\d]+$", "", entry.path.stem) or entry.path.stem
