"""Score enhanced signals against clean ones: one pair, or many pairs in parallel processes. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semamba import audio
from semamba.errors import SemambaError
from semamba.metrics import dnsmos, intrusive
from semamba.metrics.composite import composite, segmental_snr
from semamba.metrics.pool import map_isolated
from semamba.metrics.recognisers import open_recogniser

CRASHED = "PESQ failed: its program crashed on this pair"
METRICS = ("pesq", "csig", "cbak", "covl", "segsnr", "stoi", "estoi", "si_sdr")
SAMPLE_RATE = intrusive.SAMPLE_RATE

Wave = NDArray[np.floating[Any]]
Source = str | Path | tuple[Wave, int]  # a file, or samples (n,) or (1, n) and their rate in Hz


@dataclass(frozen=True)
class Pair:
    """What to score against what, under the name that the report uses."""

    name: str
    clean: Source | None  # None: only what needs no reference can be measured
    enhanced: Source


@dataclass(frozen=True)
class Scored:
    """Result of one pair: a value for each measure that is defined, and the reason for each that is not.

    `problems` uses the key "file" when nothing could be measured at all. `heard` is what the recogniser understood.
    """

    name: str
    scores: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    heard: str | None = None


@dataclass(frozen=True)
class Measures:
    """What is measured: METRICS against the reference, DNSMOS, the words that `recogniser` (KIND[:SIZE]) hears."""

    intrusive: bool = True
    dnsmos: bool = False
    recogniser: str = ""

    def require_extras(self) -> None:
        """Raise SemambaError now, not after an hour, when a library or a recogniser's weights are missing."""
        if self.intrusive:
            intrusive.require_extra()
        if self.dnsmos:
            dnsmos.require_extra()
        if self.recogniser:
            open_recogniser(self.recogniser)


@dataclass(frozen=True)
class Preparation:
    """What is done to a pair before it is measured; both are always brought to 16 kHz.

    `trim` cuts both to the shorter length. `pcs` applies perceptual contrast stretching to the enhanced signal.
    """

    trim: bool = False
    pcs: bool = False


def score(clean: Wave, enhanced: Wave, sample_rate: int = SAMPLE_RATE) -> dict[str, float]:
    """All of METRICS for two signals (n,) with samples in +-1; other rates are converted to 16 kHz.

    Raises MetricError naming every measure that is not defined for the pair.
    """
    scores, problems = measure(*prepare((clean, sample_rate), (enhanced, sample_rate)))
    if problems:
        raise intrusive.MetricError("; ".join(dict.fromkeys(problems.values())))
    return scores


def measure(clean: Wave, enhanced: Wave, skip_pesq: str = "") -> tuple[dict[str, float], dict[str, str]]:
    """(scores, problems) of two signals (n,) at 16 kHz; `skip_pesq` is the reason to leave PESQ out, if any.

    Raises MetricError when the pair is unequal, empty, silent or not finite.
    """
    clean, enhanced = intrusive.check_pair(clean, enhanced)
    scores: dict[str, float] = {}
    problems: dict[str, str] = {}

    def attempt(names: tuple[str, ...], function: Callable[[], Any]) -> None:
        try:
            values = function()
        except intrusive.MetricError as error:
            problems.update(dict.fromkeys(names, str(error)))
        else:
            scores.update(values if isinstance(values, dict) else {names[0]: values})

    if skip_pesq:
        problems["pesq"] = skip_pesq
    else:
        attempt(("pesq",), lambda: intrusive.pesq_wb(clean, enhanced))
    if "pesq" in scores:
        attempt(("csig", "cbak", "covl", "segsnr"), lambda: composite(clean, enhanced, scores["pesq"]))
    else:
        problems.update(dict.fromkeys(("csig", "cbak", "covl"), problems["pesq"]))
        attempt(("segsnr",), lambda: segmental_snr(clean, enhanced))
    attempt(("stoi",), lambda: intrusive.stoi(clean, enhanced))
    attempt(("estoi",), lambda: intrusive.stoi(clean, enhanced, extended=True))
    attempt(("si_sdr",), lambda: intrusive.si_sdr(clean, enhanced))
    return {name: scores[name] for name in METRICS if name in scores}, problems


def prepare(clean: Source, enhanced: Source, preparation: Preparation = Preparation()) -> tuple[Wave, Wave]:
    """Two equally long signals (n,) at 16 kHz. Raises SemambaError when a file is unreadable or the pair unequal."""
    (first, rate_first), (second, rate_second) = _samples(clean, "clean"), _samples(enhanced, "enhanced")
    if rate_first == rate_second and first.size != second.size and not preparation.trim:
        raise intrusive.MetricError(
            f"unequal length: clean has {first.size} samples, enhanced has {second.size} (both at {rate_first} Hz)"
        )
    first, second = _at_16k(first, rate_first), _at_16k(second, rate_second)
    # Two files of one recording at different rates may differ by the rounding of a sample.
    if first.size != second.size and (preparation.trim or abs(first.size - second.size) <= 1):
        size = min(first.size, second.size)
        first, second = first[:size], second[:size]
    return first, _stretched(second, preparation)


def evaluate_pairs(
    pairs: Iterable[Pair],
    jobs: int = 0,
    preparation: Preparation = Preparation(),
    on_result: Callable[[Scored], None] | None = None,
    measures: Measures = Measures(),
) -> list[Scored]:
    """Score every pair, in the order given; a pair that fails becomes a `Scored` that says why.

    `jobs` processes share the work and a crash of PESQ costs only its own file; 0 works in this process. A script
    that sets `jobs` needs the usual `if __name__ == "__main__":`. `pairs` may be a generator: it is read only
    as fast as results arrive. `on_result` is called as each result arrives, in any order.
    """
    measures.require_extras()
    work = partial(_score_pair, preparation=preparation, measures=measures)
    if jobs:
        results = map_isolated(work, pairs, jobs, partial(work, skip_pesq=CRASHED))
    else:
        results = ((index, work(pair)) for index, pair in enumerate(pairs))
    scored: dict[int, Scored] = {}
    for index, result in results:
        scored[index] = result
        if on_result is not None:
            on_result(result)
    return [scored[index] for index in sorted(scored)]


def evaluate_enhancer(
    files: Iterable[tuple[str, Path | None, Path]],
    enhance: Callable[[Wave, int], Wave],
    jobs: int = 0,
    preparation: Preparation = Preparation(),
    on_result: Callable[[Scored], None] | None = None,
    measures: Measures = Measures(),
    write: Callable[[str, Wave, int], None] | None = None,
) -> list[Scored]:
    """Score what `enhance(samples (n,), rate)` makes of the noisy file of each (name, clean file, noisy file).

    Files are enhanced here, one after the other at their own rate, while `jobs` processes score those that are ready.
    `write(name, samples, rate)` is called with each.
    """
    files = list(files)
    failed: list[Scored] = []

    def enhanced() -> Iterator[Pair]:
        for name, clean, noisy in files:
            try:
                wave, rate = _samples(noisy, "noisy")
                better = enhance(wave, rate)
                if write is not None:
                    write(name, better, rate)
                yield Pair(name, clean, (better, rate))
            except SemambaError as error:
                failed.append(Scored(name, problems={"file": str(error)}))
                if on_result is not None:
                    on_result(failed[-1])

    scored = {result.name: result for result in evaluate_pairs(enhanced(), jobs, preparation, on_result, measures)}
    scored |= {result.name: result for result in failed}
    return [scored[name] for name, _, _ in files]


def _score_pair(pair: Pair, preparation: Preparation, measures: Measures, skip_pesq: str = "") -> Scored:
    try:
        if pair.clean is None:
            clean, enhanced = None, _stretched(_at_16k(*_samples(pair.enhanced, "enhanced")), preparation)
        else:
            clean, enhanced = prepare(pair.clean, pair.enhanced, preparation)
        scores, problems = ({}, {}) if clean is None or not measures.intrusive else measure(clean, enhanced, skip_pesq)
        if measures.dnsmos:
            try:
                scores |= dnsmos.rate(enhanced)
            except intrusive.MetricError as error:
                problems |= dict.fromkeys(dnsmos.RATINGS, str(error))
        heard = None
        if measures.recogniser and enhanced.size and np.isfinite(enhanced).all():
            heard = open_recogniser(measures.recogniser).transcribe(np.asarray(enhanced, np.float32))
        return Scored(pair.name, scores, problems, heard)
    except SemambaError as error:
        return Scored(pair.name, problems={"file": str(error)})
    except MemoryError:
        return Scored(pair.name, problems={"file": "too long for the memory of this machine: cut it into pieces"})


def _stretched(wave: Wave, preparation: Preparation) -> Wave:
    if not preparation.pcs or not wave.size or not np.isfinite(wave).all():
        return wave
    from semamba import pcs

    return pcs.stretch(wave)


def _samples(source: Source, role: str) -> tuple[Wave, int]:
    wave, rate = source if isinstance(source, tuple) else audio.read(source)
    wave = np.asarray(wave)
    if wave.ndim == 2 and wave.shape[0] == 1:
        wave = wave[0]
    if wave.ndim != 1:
        raise intrusive.MetricError(f"the {role} signal has shape {wave.shape}: only one channel can be scored")
    return wave, rate


def _at_16k(wave: Wave, rate: int) -> Wave:
    if rate == SAMPLE_RATE or wave.size == 0:
        return wave
    return audio.resample(np.asarray(wave, dtype=np.float32), rate, SAMPLE_RATE)
