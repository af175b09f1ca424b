"""Measures of one enhanced signal against its clean reference: WB-PESQ, STOI, ESTOI and SI-SDR.

The only file that imports `pesq` and `pystoi` (extra `eval`). Every function takes two real signals of
shape (n,), in any common scale, and returns one float. What cannot be measured raises `MetricError`:
no value is ever made up (`pystoi` itself returns 1e-5 and `pesq` can return -1).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semamba.errors import SemambaError

SAMPLE_RATE = 16000  # Hz; wide-band PESQ is defined at this rate only

PESQ_SECONDS = 90  # the P.862 program writes past its tables beyond 50 utterances: wrong values, then a crash

Signal = NDArray[np.floating[Any]]


class MetricError(SemambaError):
    """A measure is not defined for this pair; the message says why."""


def require_extra() -> None:
    """Raise SemambaError with the install command when `pesq` or `pystoi` is missing."""
    try:
        import pesq  # noqa: F401
        import pystoi  # noqa: F401
    except ImportError as error:
        raise _missing(error) from None


def check_pair(clean: Signal, enhanced: Signal) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both signals (n,) as float64; raises MetricError if they are unequal, empty, non-finite or silent."""
    clean, enhanced = (np.asarray(signal, dtype=np.float64) for signal in (clean, enhanced))
    for name, signal in (("clean", clean), ("enhanced", enhanced)):
        if signal.ndim != 1:
            raise MetricError(f"the {name} signal has shape {signal.shape}; measures take one channel of shape (n,)")
        if signal.size == 0:
            raise MetricError(f"the {name} signal is empty")
        if not np.isfinite(signal).all():
            raise MetricError(f"the {name} signal holds NaN or infinite samples")
        if not signal.any():
            raise MetricError(f"the {name} signal is silent")
    if clean.size != enhanced.size:
        raise MetricError(f"unequal length: clean has {clean.size} samples, enhanced has {enhanced.size}")
    return clean, enhanced


def pesq_wb(clean: Signal, enhanced: Signal, sample_rate: int = SAMPLE_RATE) -> float:
    """Wide-band PESQ, MOS-LQO of ITU-T P.862.2, about 1.04 to 4.64, at 16 kHz; 0.25 to PESQ_SECONDS long."""
    try:
        import pesq
    except ImportError as error:
        raise _missing(error) from None
    if sample_rate != SAMPLE_RATE:
        raise MetricError(f"wide-band PESQ is defined at {SAMPLE_RATE} Hz, not at {sample_rate} Hz: resample first")
    clean, enhanced = check_pair(clean, enhanced)
    if clean.size > PESQ_SECONDS * sample_rate:
        raise MetricError(
            f"PESQ takes at most {PESQ_SECONDS} s, got {clean.size / sample_rate:.0f} s: cut it into pieces"
        )
    try:
        value = float(pesq.pesq(sample_rate, clean, enhanced, "wb"))
    except pesq.PesqError as error:
        reason = error.args[0] if error.args else error
        raise MetricError(f"PESQ failed: {reason.decode() if isinstance(reason, bytes) else reason}") from None
    if not 1.0 <= value <= 5.0:  # also catches NaN
        raise MetricError(f"PESQ failed: it returned {value}")
    return value


def raw_pesq(mos: float) -> float:
    """The score before the map to MOS-LQO (P.862.2), about -0.5 to 4.5, of a value of `pesq_wb`."""
    return (3.8224 - math.log(4 / (mos - 0.999) - 1)) / 1.3669


def stoi(clean: Signal, enhanced: Signal, sample_rate: int = SAMPLE_RATE, extended: bool = False) -> float:
    """Short-time objective intelligibility (Taal 2011), or ESTOI (Jensen & Taal 2016) when `extended`; 1 is best.

    Needs about 0.4 s of speech after the silent frames are dropped.
    """
    try:
        from pystoi import stoi as measure
    except ImportError as error:
        raise _missing(error) from None
    clean, enhanced = check_pair(clean, enhanced)
    name = "ESTOI" if extended else "STOI"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames")
        try:
            value = float(measure(clean, enhanced, sample_rate, extended=extended))
        except (RuntimeWarning, ValueError):
            raise MetricError(f"{name} failed: less than about 0.4 s of speech") from None
    if not math.isfinite(value):
        raise MetricError(f"{name} failed: it returned {value}")
    return value


def si_sdr(clean: Signal, enhanced: Signal) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux 2019), after removing both means."""
    clean, enhanced = check_pair(clean, enhanced)
    for name, signal in (("clean", clean), ("enhanced", enhanced)):
        if (signal == signal[0]).all():
            raise MetricError(f"SI-SDR is not defined: the {name} signal is constant")
    clean, enhanced = clean - clean.mean(), enhanced - enhanced.mean()
    target = clean * (np.dot(enhanced, clean) / np.dot(clean, clean))
    matched, distortion = np.sum(target**2), np.sum((enhanced - target) ** 2)
    rounding = (10 * np.finfo(np.float64).eps) ** 2 * (matched + distortion)
    if distortion <= rounding:
        raise MetricError("SI-SDR is infinite: the enhanced signal is a scaled copy of the clean one")
    if matched <= rounding:
        raise MetricError("SI-SDR is minus infinity: the enhanced signal holds nothing of the clean one")
    return float(10.0 * np.log10(matched / distortion))


def _missing(error: ImportError) -> SemambaError:
    return SemambaError(f"PESQ and STOI need the optional part 'eval' ({error}): pip install 'semamba[eval]'")
