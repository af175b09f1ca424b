"""Dynamic mixing: a random, never repeated (noisy, clean) pair from a bank of speech, noise and rooms.

Order: speech (speed, equaliser) -> room -> + noise at an SNR -> band limit -> level -> defects of the line.
The clean target goes through everything but the late room, the noise, clipping and coding, with the same gains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from semamba.data import codec, filters, noise, rooms
from semamba.data.bank import SpeechBank
from semamba.errors import SemambaError

Waves = tuple[np.ndarray, np.ndarray]

INT16 = np.float32(1 / 32768)
PEAK = 0.99
PROBABILITIES = (
    *("clean_only", "noise_only", "late_start", "babble", "rule_noise", "speech_shaped", "second_noise", "wander"),
    *("speech_equaliser", "noise_equaliser", "room", "simulated_room", "band_limit", "clipping", "gaps", "companding"),
    *("codec", "paired_remix"),
)
RANGES = (
    *("babble_voices", "snr_db", "level_dbfs", "speech_speed", "noise_speed", "band_limit_hz", "codec_step"),
    "paired_gain_db",
)
QUIET_DB = 30.0  # frames this far below the loudest do not count as active


@dataclass(frozen=True)
class MixConfig:
    """What the mixer draws. Probabilities lie in 0..1, ranges are (low, high), uniform unless said."""

    crop_seconds: float = 2.0
    snr_db: tuple[float, float] = (-5.0, 25.0)  # active speech to active noise
    voice_gap_db: float = 8.0  # of one voice of babble below the speaker: nearer nothing tells who is meant to be heard
    level_dbfs: tuple[float, float] = (-40.0, -5.0)  # RMS of the mixture; lowered where its peak would clip
    min_activity: float = 0.4  # share of the crop that must carry speech, if a few tries find it
    clean_only: float = 0.03  # speech without noise
    noise_only: float = 0.02  # noise with a silent target
    late_start: float = 0.10  # speech begins inside the first half
    babble: float = 0.20  # noise is voices
    babble_voices: tuple[int, int] = (4, 9)  # how many, both included
    noise_weights: dict[str, float] = field(default_factory=dict)  # *rain*: 0.3 makes such files rarer; see bank
    rule_noise: float = 0.20  # noise is made by rule
    speech_shaped: float = 0.25  # of the noises made by rule, those with the spectrum of a voice
    second_noise: float = 0.30  # another noise 0 to 15 dB below the first
    wander: float = 0.20  # the noise level moves
    speech_speed: tuple[float, float] = (0.9, 1.1)
    noise_speed: tuple[float, float] = (0.8, 1.25)
    speech_equaliser: float = 0.40
    noise_equaliser: float = 0.50
    equaliser_db: float = 2.0  # standard deviation of the equaliser's knots; noise gets twice that
    room: float = 0.25
    simulated_room: float = 0.6  # of the rooms, when there are recorded ones as well
    room_seconds: float = 1.0  # longest response
    early_seconds: float = 0.05  # of the room, what the target keeps
    band_limit: float = 0.10
    band_limit_hz: tuple[float, float] = (4000.0, 8000.0)
    clipping: float = 0.03
    gaps: float = 0.02  # lost packets, silent in mixture and target
    companding: float = 0.02  # mu-law of 8 bits, as on the telephone
    codec: float = 0.03  # artefacts of lossy coding
    codec_step: tuple[float, float] = (0.3, 2.5)  # of its rounding, from hardly audible to a low bit rate; see codec
    paired: float | Literal["auto"] = "auto"  # share of recorded pairs; auto goes by seconds of them and of speech
    paired_remix: float = 0.0  # of the recorded pairs, those that get the (additive) noise of another
    paired_gain_db: tuple[float, float] = (0.0, 0.0)  # on both sides of a recorded pair

    def __post_init__(self) -> None:
        for name in RANGES:
            low, high = getattr(self, name)
            if not low <= high:
                raise SemambaError(f"mixing: {name} is ({low}, {high}); the first value must not exceed the second")
        if self.crop_seconds < 0.1:
            raise SemambaError(f"mixing: crop_seconds is {self.crop_seconds}; it must be at least 0.1")
        for name in PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise SemambaError(f"mixing: {name} is {getattr(self, name)}; a probability lies in 0..1")
        for pattern, weight in self.noise_weights.items():
            if not 0 <= weight < float("inf"):
                raise SemambaError(f"mixing: noise_weights['{pattern}'] is {weight}; it must be 0 or more")
        if self.babble_voices[0] < 1:
            raise SemambaError(f"mixing: babble_voices begins at {self.babble_voices[0]}; it must be 1 or more")
        if self.codec_step[0] < 0:
            raise SemambaError(f"mixing: codec_step begins at {self.codec_step[0]}; it must be 0 or more")
        if self.paired != "auto" and not 0 <= self.paired <= 1:
            raise SemambaError(f"mixing: paired is {self.paired}; it is auto, or a share in 0..1")
        if min(*self.speech_speed, *self.noise_speed, self.early_seconds, self.room_seconds) <= 0:
            raise SemambaError("mixing: speeds, early_seconds and room_seconds must be positive")


class Mixer:
    """Draws training pairs from a bank; holds no random state of its own."""

    def __init__(self, bank: SpeechBank, config: MixConfig | None = None) -> None:
        self.bank, self.config = bank, config or MixConfig()
        self.rate = bank.sample_rate
        self.length = round(self.config.crop_seconds * self.rate)
        self._room_length = round(self.config.room_seconds * self.rate)
        self._silence: np.ndarray = np.zeros(self.length, np.float32)
        self._voices = list(bank.voices.values())
        self._noise_chances = bank.noise_chances(self.config.noise_weights)
        self._rooms = [rooms.prepare(_floats(bank.audio[a:b]), self._room_length) for a, b in bank.rirs]

    def sample(self, rng: np.random.Generator) -> Waves:
        """(noisy, clean), float32 (crop,), within [-1, 1], aligned sample by sample."""
        config, kind = self.config, rng.random()
        if kind < config.noise_only:
            speech, clean = self._silence, self._silence
        else:
            speech, clean = self._speech(rng)
        if kind < config.noise_only or kind >= config.noise_only + config.clean_only:
            # voices alone, with nobody in front, would ask the model to guess which of them is unwanted
            added, voices = self._noise(rng, babble=config.babble if kind >= config.noise_only else 0.0)
            snr = rng.uniform(*config.snr_db)
            snr = max(snr, float(lowest_snr(voices, config))) if voices else snr
            noisy = speech + added * noise_gain(speech, added, snr, self.rate)
        else:
            noisy = speech.copy()
        noisy, clean = self._band_limit(rng, noisy, clean)
        noisy, clean = self._set_level(rng, noisy, clean)
        return self._line(rng, noisy, clean)

    def _speech(self, rng: np.random.Generator) -> Waves:
        """(as the microphone hears it, target)."""
        config = self.config
        in_room = rng.random() < config.room
        past = self._room_length if in_room else 0
        voice = self._voices[int(rng.integers(len(self._voices)))]
        speech = self._crop(rng, voice, self.length + past, config.speech_speed, config.min_activity)
        if rng.random() < config.speech_equaliser:
            response = filters.random_equaliser(rng, len(speech), self.rate, config.equaliser_db)
            speech = filters.resample_filter(speech, len(speech), response)
        if rng.random() < config.late_start:
            speech[: past + int(rng.uniform(0, 0.5) * self.length)] = 0
        if not in_room:
            return speech, speech
        return rooms.reverberate(speech, self._room(rng), self.length, max(round(config.early_seconds * self.rate), 1))

    def _room(self, rng: np.random.Generator) -> np.ndarray:
        if not self._rooms or rng.random() < self.config.simulated_room:
            return rooms.simulate(rng, self._room_length, self.rate)
        return self._rooms[int(rng.integers(len(self._rooms)))]

    def _noise(self, rng: np.random.Generator, babble: float) -> tuple[np.ndarray, int]:
        """(noise (crop,) at any level, how many voices most of it is, 0 for other noise)."""
        config = self.config
        low, high = config.babble_voices
        voices = int(rng.integers(low, high + 1)) if rng.random() < babble else 0
        mixture = self._babble(rng, voices) if voices else self._one_noise(rng)
        if rng.random() < config.second_noise:
            other = self._one_noise(rng)
            gap_db = rng.uniform(0, 15)
            mixture = mixture + other * noise_gain(mixture, other, gap_db, self.rate)
        if rng.random() < config.noise_equaliser:
            response = filters.random_equaliser(rng, self.length, self.rate, 2 * config.equaliser_db)
            mixture = filters.resample_filter(mixture, self.length, response)
        if rng.random() < config.wander:
            mixture = mixture * noise.wander(rng, self.length, self.rate, spread_db=4.0)
        return mixture, voices

    def _one_noise(self, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < self.config.rule_noise or not self.bank.noises:
            if rng.random() < self.config.speech_shaped:
                voice = self._voices[int(rng.integers(len(self._voices)))]
                return noise.speech_shaped(rng, self._crop(rng, voice, self.length, (1.0, 1.0), 0.3))
            return noise.make(rng, self.length, self.rate)
        track = self.bank.noises[int(rng.choice(len(self.bank.noises), p=self._noise_chances))]
        x = self._crop(rng, track, self.length, self.config.noise_speed)
        return x if x.any() else noise.make(rng, self.length, self.rate)

    def _babble(self, rng: np.random.Generator, voices: int) -> np.ndarray:
        """Voices, each 0 to 6 dB below the loudest, often in one room."""
        in_room = rng.random() < 0.5
        length = self.length + (self._room_length if in_room else 0)
        total = np.zeros(length, np.float32)
        for index in rng.integers(len(self._voices), size=voices):
            voice = self._crop(rng, self._voices[int(index)], length, (1.0, 1.0), 0.3)
            total += voice * np.float32(10 ** (-rng.uniform(0, 6) / 20) / max(active_rms(voice, self.rate), 1e-4))
        if in_room:
            total, _ = rooms.reverberate(total, self._room(rng), self.length, round(0.05 * self.rate))
        return total

    def _crop(
        self,
        rng: np.random.Generator,
        span: tuple[int, int],
        length: int,
        speed: tuple[float, float],
        min_activity: float = 0.0,
    ) -> np.ndarray:
        """(length,) float32 from a random place of the span, played at a random speed."""
        size = length
        if speed != (1.0, 1.0):
            sizes = filters.smooth_sizes(round(length * speed[0]), round(length * speed[1]))
            size = int(sizes[int(rng.integers(len(sizes)))])
        start, stop = span
        if stop - start < size:
            x = _repeat(rng, _floats(self.bank.audio[start:stop]), size)
        else:
            for _ in range(8):
                begin = int(rng.integers(start, stop - size + 1))
                if not min_activity:
                    break
                # judged where the crop itself will lie, not in the past that only feeds a room
                if self.bank.activity(max(begin, begin + size - self.length), begin + size) >= min_activity:
                    break
            x = _floats(self.bank.audio[begin : begin + size])
        return x if size == length else filters.resample_filter(x, length)

    def _band_limit(self, rng: np.random.Generator, noisy: np.ndarray, clean: np.ndarray) -> Waves:
        if rng.random() >= self.config.band_limit:
            return noisy, clean
        response = filters.low_pass(self.length, self.rate, rng.uniform(*self.config.band_limit_hz))
        noisy = filters.resample_filter(noisy, self.length, response)
        return noisy, filters.resample_filter(clean, self.length, response)

    def _set_level(self, rng: np.random.Generator, noisy: np.ndarray, clean: np.ndarray) -> Waves:
        rms, peak = float(np.sqrt(np.mean(np.square(noisy)))), _peak(noisy, clean)
        wanted = 10 ** (rng.uniform(*self.config.level_dbfs) / 20) / max(rms, 1e-6)
        gain = np.float32(min(wanted, PEAK / max(peak, 1e-6)))
        return noisy * gain, clean * gain

    def _line(self, rng: np.random.Generator, noisy: np.ndarray, clean: np.ndarray) -> Waves:
        """Clipping, companding, coding and lost packets."""
        config = self.config
        if rng.random() < config.clipping:
            ceiling = np.float32(_peak(noisy, noisy) * 10 ** (-rng.uniform(1, 10) / 20))
            noisy = np.clip(noisy, -ceiling, ceiling)
        if rng.random() < config.companding:
            squeezed = np.sign(noisy) * np.log1p(255 * np.abs(noisy)) / np.float32(np.log(256))
            steps = np.round(squeezed * 127) / 127
            noisy = (np.sign(steps) * np.expm1(np.abs(steps) * np.float32(np.log(256))) / 255).astype(np.float32)
        if rng.random() < config.codec:
            step = torch.full((1, 1), rng.uniform(*config.codec_step))
            noisy = codec.squeeze(torch.from_numpy(noisy)[None], step)[0].clamp(-1, 1).numpy()
        if rng.random() < config.gaps:
            for _ in range(int(rng.integers(1, 5))):
                size = int(rng.uniform(0.01, 0.04) * self.rate)
                start = int(rng.integers(max(self.length - size, 1)))
                noisy[start : start + size] = 0
                clean[start : start + size] = 0
        return noisy, clean


def active_rms(x: np.ndarray, sample_rate: int) -> float:
    """RMS over the 20-ms frames of `x` (n,) at most 30 dB below the loudest; 0 for silence."""
    size = max(min(sample_rate // 50, len(x)), 1)
    power = np.square(x[: len(x) // size * size].reshape(-1, size)).mean(axis=1)
    top = float(power.max(initial=0.0))
    return float(np.sqrt(power[power >= top * 10 ** (-QUIET_DB / 10)].mean())) if top > 0 else 0.0


def lowest_snr(voices: int | np.ndarray, config: MixConfig) -> float | np.ndarray:
    """SNR in dB of so many equal voices, each of which is `voice_gap_db` below the speaker."""
    return config.voice_gap_db - 10 * np.log10(voices)


def noise_gain(speech: np.ndarray, noise: np.ndarray, snr_db: float, sample_rate: int) -> np.float32:
    """The factor for `noise` that puts it `snr_db` below `speech`, both measured where they are active; 1 when
    either is silent."""
    signal, disturbance = active_rms(speech, sample_rate), active_rms(noise, sample_rate)
    if signal <= 0 or disturbance <= 0:
        return np.float32(1)
    return np.float32(signal / disturbance * 10 ** (-snr_db / 20))


def _floats(x: np.ndarray) -> np.ndarray:
    return x * INT16


def _peak(a: np.ndarray, b: np.ndarray) -> float:
    return float(max(a.max(), -a.min(), b.max(), -b.min()))


def _repeat(rng: np.random.Generator, x: np.ndarray, size: int) -> np.ndarray:
    """(size,) filled with copies of the shorter `x` and random pauses up to its length."""
    out = np.zeros(size, np.float32)
    start = -int(rng.integers(len(x)))
    while start < size:
        first, last = max(start, 0), min(start + len(x), size)
        out[first:last] = x[first - start : last - start]
        start += len(x) + int(rng.integers(len(x)))
    return out
