"""One audio file as mono samples at the rate of training, whatever it was."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from semamba import audio
from semamba.audio.formats import native
from semamba.errors import SemambaError


def read_float(path: Path, sample_rate: int, first_channel: bool = False) -> np.ndarray:
    """(n,) float32: the mean of the channels (or the first), resampled where needed. Raises SemambaError."""
    channels, rate = audio.read(path)
    if not channels.shape[1]:
        raise SemambaError(f"{path}: holds no samples")
    wave = channels[0] if first_channel or len(channels) == 1 else channels.mean(axis=0)
    return audio.resample(wave, rate, sample_rate, quality="VHQ") if rate != sample_rate else wave


def read_int16(path: Path, sample_rate: int, content: bytes | None = None, first_channel: bool = False) -> np.ndarray:
    """(n,) int16 of a file, or of the `content` that a file of that name had. Raises SemambaError when it cannot be
    read or is empty."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content) if content else native(path)) as file:
            rate, whole = file.samplerate, file.subtype.startswith(("PCM_", "ALAC_"))
            # libsndfile's own way to integers makes silence of floats, and lets loud Vorbis and Opus wrap around
            samples = file.read(dtype="int16" if whole else "float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise SemambaError(f"{path}: cannot be read as audio ({error})") from None
    if not len(samples):
        raise SemambaError(f"{path}: holds no samples")
    if not whole:
        if not np.isfinite(samples).all():
            raise SemambaError(f"{path}: holds samples that are not numbers")
        samples *= 32768
    if whole and samples.shape[1] == 1 and rate == sample_rate:
        return samples[:, 0]
    wave = (samples[:, 0] if first_channel else samples.mean(axis=1)).astype(np.float32)
    if rate != sample_rate:
        wave = audio.resample(wave, rate, sample_rate, quality="VHQ")
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)
