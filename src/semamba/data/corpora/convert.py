"""One unit of a corpus, as it is published, to 16-kHz mono FLAC, checked on the way. Runs in worker processes.

There is one resampler, soxr at its very high quality: linear phase, flat to 7.3 kHz, nothing above 8 kHz. Which
one is used matters, since published scores of one and the same model differ with it: all material takes the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semamba import audio
from semamba.data.corpora.layout import PAIR, Unit
from semamba.data.manifest import EXTENSIONS
from semamba.data.reading import read_float
from semamba.errors import SemambaError

RATE = 16000
RESAMPLER = "soxr VHQ"
SHORTEST = 0.1  # seconds
SILENCE = 1e-4  # of full scale; a file that never exceeds it (-80 dB) is silent
LENGTH_TOLERANCE = 0.01  # seconds between the two sides of a pair
LAG_TOLERANCE = 0.001  # seconds
LAG_REACH = 0.5  # seconds searched in both directions
RELATED = 10.0  # peak of the correlation over its RMS: real pairs of 3 s reach 21 at least, strangers 8.3 at most
TELLING = 2.0  # seconds; shorter files may go either way, and get the benefit of the doubt


@dataclass(frozen=True)
class Record:
    """What became of a unit. `problem` is empty, or why it is left out; `note` is worth a look."""

    unit: Unit
    seconds: float = 0.0
    problem: str = ""
    note: str = ""
    linked: bool = False  # the source itself is good as it is, and no copy was made


@dataclass(frozen=True)
class Settings:
    copy: bool = False  # also files that are 16-kHz mono already
    align: bool = False  # take the measured lag out of pairs


def convert(unit: Unit, out: Path, settings: Settings) -> Record:
    """Write the converted file or files below `out`. The record says what is wrong with a bad file; what raises
    SemambaError is a result that cannot be written."""
    try:
        record, waves = (_check_pair if unit.kind == PAIR else _check_one)(unit, settings)
    except SemambaError as error:
        return Record(unit, problem=str(error))
    for target, wave in zip(unit.targets, waves, strict=False):
        audio.write(out / target, wave, RATE)
    return record


def _check_one(unit: Unit, settings: Settings) -> tuple[Record, list[np.ndarray]]:
    """The record, and what is to be written: nothing where the source is good as it is."""
    info = audio.probe(unit.source)
    ready = info.sample_rate == RATE and info.channels == 1 and unit.source.suffix.lower() in EXTENSIONS
    wave = _load(unit.source, first_channel=unit.kind == "rir")
    linked = ready and not settings.copy
    return Record(unit, len(wave) / RATE, linked=linked), [] if linked else [wave]


def _check_pair(unit: Unit, settings: Settings) -> tuple[Record, list[np.ndarray]]:
    assert unit.noisy is not None
    clean, noisy = _load(unit.source), _load(unit.noisy)
    note = ""
    lag, peak = find_lag(clean, noisy)
    if abs(peak) < RELATED and min(len(clean), len(noisy)) >= TELLING * RATE:
        raise SemambaError(f"{unit.noisy}: nothing in common with its clean partner {unit.source}")
    lag = lag if abs(peak) >= RELATED else 0
    if peak <= -RELATED:
        raise SemambaError(f"{unit.noisy}: its polarity is that of {unit.source} turned over")
    late = abs(lag) > LAG_TOLERANCE * RATE
    what = f"{unit.noisy}: {1000 * abs(lag) / RATE:.1f} ms {'behind' if lag > 0 else 'ahead of'} {unit.source}"
    if settings.align:
        clean, noisy = clean[max(-lag, 0) :], noisy[max(lag, 0) :]
        note = f"{what}; taken out" if late else ""
    elif abs(len(clean) - len(noisy)) > LENGTH_TOLERANCE * RATE:
        raise SemambaError(
            f"{unit.noisy}: {len(noisy) / RATE:.2f} s, but its clean partner has {len(clean) / RATE:.2f} s"
        )
    elif late and unit.split != "test":
        raise SemambaError(f"{what}; --align takes it out")
    elif late:
        note = f"{what}; kept, as it is test material"
    size = min(len(clean), len(noisy))
    return Record(unit, size / RATE, note=note), [clean[:size], noisy[:size]]


def find_lag(clean: np.ndarray, noisy: np.ndarray) -> tuple[int, float]:
    """(samples by which `noisy` comes later, correlation there over its RMS at all lags), of waves (n,) and (m,).

    Both are differenced first, which flattens the spectrum of speech, so that the peak is sharp and a low rumble
    in the noise cannot move it. A lag counts only when it fits clearly better than none.
    """
    first, second = (np.diff(wave.astype(np.float32)) for wave in (clean, noisy))
    reach = round(LAG_REACH * RATE)
    size = 1 << (max(len(first), len(second)) + reach).bit_length()
    spectrum = np.fft.rfft(second, size) * np.conj(np.fft.rfft(first, size))
    products = np.fft.irfft(spectrum, size)
    products = np.concatenate([products[-reach:], products[: reach + 1]])  # lags -reach to reach
    scale = float(np.sqrt(np.mean(np.square(products))))
    best = int(np.argmax(np.abs(products)))
    if abs(products[reach]) >= 0.9 * abs(products[best]):
        best = reach
    return best - reach, float(products[best]) / max(scale, 1e-12)


def _load(path: Path, first_channel: bool = False) -> np.ndarray:
    """(n,) float32 at 16 kHz. Raises SemambaError for what cannot be read or is of no use."""
    wave = read_float(path, RATE, first_channel)
    if len(wave) < SHORTEST * RATE:
        raise SemambaError(f"{path}: only {1000 * len(wave) / RATE:.0f} ms long")
    if not np.isfinite(wave).all():
        raise SemambaError(f"{path}: holds values that are not numbers")
    if float(np.abs(wave).max()) < SILENCE:
        raise SemambaError(f"{path}: silent")
    return wave
