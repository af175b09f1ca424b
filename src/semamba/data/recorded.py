"""Training on recorded pairs: crops of a clean file and its noisy partner, aligned sample by sample."""

from __future__ import annotations

import numpy as np

from semamba.data.bank import SpeechBank
from semamba.data.mixing import INT16, PEAK, MixConfig, Waves
from semamba.errors import SemambaError

_TRIES = 8  # places looked at for enough speech


class RecordedPairs:
    """Draws from the pairs of a bank; holds no random state of its own.

    share: the part of all items that should be recorded pairs. `auto` is the share of their seconds beside the
    speech to mix: 1 where there is no such speech, 0 where there are no pairs.
    """

    def __init__(self, bank: SpeechBank, config: MixConfig) -> None:
        """Raises SemambaError when the share asks for what the bank does not hold."""
        self.bank, self.config = bank, config
        self.length = round(config.crop_seconds * bank.sample_rate)
        sizes = np.array([size for _, _, size in bank.pairs])
        # a pair is drawn once for each crop that it holds, so that a long recording counts for its length
        weights = np.maximum(sizes // self.length, 1)
        self._until = np.cumsum(weights)
        paired = float(sizes.sum()) / bank.sample_rate  # of pairs that are whole: `bank.seconds` counts lone sides too
        both = bank.seconds["speech"] + paired
        self.share = paired / max(both, 1e-9) if config.paired == "auto" else float(config.paired)
        if self.share > 0 and not bank.pairs:
            raise SemambaError(f"mix.paired is {config.paired}, but the training split has no recorded pairs")
        if self.share < 1 and not bank.voices:
            raise SemambaError(f"mix.paired is {config.paired}, but there is no speech to mix; set it to 1 or auto")

    def sample(self, rng: np.random.Generator) -> Waves:
        """(noisy, clean), float32 (crop,), within [-1, 1]; as recorded, but for remix and gain."""
        noisy, clean = self._crop(rng)
        if rng.random() < self.config.paired_remix:
            other, its_clean = self._crop(rng)
            noisy = clean + (other - its_clean)
        low, high = self.config.paired_gain_db
        gain = 10 ** (rng.uniform(low, high) / 20) if high > low else 10 ** (low / 20)
        peak = max(float(np.abs(noisy).max()), float(np.abs(clean).max()))
        if gain * peak > PEAK and (gain != 1 or peak > 1):
            gain = PEAK / peak
        return (noisy, clean) if gain == 1 else (noisy * np.float32(gain), clean * np.float32(gain))

    def _crop(self, rng: np.random.Generator) -> Waves:
        """A random stretch, of the first few tries one with enough speech; a pair too short for it is repeated."""
        clean, noisy, size = self.bank.pairs[int(np.searchsorted(self._until, rng.integers(self._until[-1]), "right"))]
        if size < self.length:
            shift = int(rng.integers(size))
            index = np.arange(shift, shift + self.length) % size
            return self.bank.audio[noisy + index] * INT16, self.bank.audio[clean + index] * INT16
        for _ in range(_TRIES):
            begin = int(rng.integers(size - self.length + 1))
            if self.bank.activity(clean + begin, clean + begin + self.length) >= self.config.min_activity:
                break
        stretch = slice(begin, begin + self.length)
        sides = (self.bank.audio[start : start + size][stretch] * INT16 for start in (noisy, clean))
        return next(sides), next(sides)
