"""Dynamic mixing of whole batches on a device, the bank's audio resident in its memory.

The same pairs in distribution as `data.mixing` draws (same order of effects, same MixConfig), not the same numbers.
What is simpler here: rows of a batch share a few speeds, so that resampling is a few transforms; a file shorter than
the crop repeats with one pause instead of random ones.

Letters: n rows, L samples of a crop, R of a room's response.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from semamba.data import codec, device_noise, filters, rooms
from semamba.data.bank import SpeechBank
from semamba.data.device_noise import from_db, rms
from semamba.data.device_rooms import reverberate, simulate
from semamba.data.draws import Draws
from semamba.data.mixing import INT16, PEAK, QUIET_DB, MixConfig, lowest_snr
from semamba.data.recorded import RecordedPairs

Batch = tuple[Tensor, Tensor]
SPEEDS = 8  # different speeds in one batch
_TRIES = 8  # places looked at for enough speech
_NEVER = np.iinfo(np.int64).max
_LOG_256 = float(np.log(256))


class Places(NamedTuple):
    """Where rows read, each (n,) on the host: `size` samples from `offset` on in the span that starts at `start` and
    has `length` samples; a span shorter than that starts again after `period`, silent in between."""

    size: np.ndarray
    start: np.ndarray
    length: np.ndarray
    offset: np.ndarray
    period: np.ndarray


class DeviceMixer:
    """Batch `index` of (seed, epoch) is the same whenever it is asked for, on one kind of device."""

    def __init__(
        self,
        bank: SpeechBank,
        config: MixConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        epoch: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Copies the bank to the device: two bytes a sample. `share` (i, n): this is the i-th of n processes that
        train on one batch together, and makes a batch's n-th part for itself."""
        self.bank, self.config = bank, config or MixConfig()
        self.device, self.seed, self.epoch, self.share = torch.device(device), seed, epoch, share
        self.rate = bank.sample_rate
        self.length = round(self.config.crop_seconds * self.rate)
        self.room_length = round(self.config.room_seconds * self.rate)
        self._audio = torch.from_numpy(np.array(bank.audio)).to(self.device)
        self.recorded = RecordedPairs(bank, self.config)
        self._voices = np.array(list(bank.voices.values()))
        self._noises = np.array(bank.noises).reshape(-1, 2)
        self._noise_chances = bank.noise_chances(self.config.noise_weights)
        recorded = [rooms.prepare(bank.audio[a:b] * INT16, self.room_length) for a, b in bank.rirs]
        self._rooms = torch.from_numpy(np.array(recorded, np.float32)).to(self.device)

    def batches(self, batch_size: int, steps: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start` to `start + steps - 1`."""
        return (self.batch(start + step, batch_size) for step in range(steps))

    @torch.no_grad()
    def batch(self, index: int, batch_size: int) -> Batch:
        """(noisy, clean), each float32 (B, L) within [-1, 1], aligned sample by sample; B is this process's share."""
        part, parts = self.share
        batch_size //= parts
        draws = Draws(self.device, self.seed, self.epoch, index, part)
        if not self.recorded.share:
            return self._mix(draws, batch_size)
        chosen = draws.chance(self.recorded.share, batch_size)
        pairs = [self.recorded.sample(draws.host) for _ in range(int(chosen.sum()))]
        sides = [torch.empty(batch_size, self.length, device=self.device) for _ in ("noisy", "clean")]
        if pairs:
            for side, waves in zip(sides, zip(*pairs, strict=True), strict=True):
                side[draws.rows(chosen)] = draws.send(np.stack(waves))
        if not chosen.all():
            for side, mixed in zip(sides, self._mix(draws, int((~chosen).sum())), strict=True):
                side[draws.rows(~chosen)] = mixed
        return sides[0], sides[1]

    def _mix(self, draws: Draws, batch_size: int) -> Batch:
        """(noisy, clean), each (B, L), by the rules of the config."""
        config = self.config
        kind = draws.host.random(batch_size)
        silent = kind < config.noise_only
        alone = ~silent & (kind < config.noise_only + config.clean_only)
        speech, clean = self._speech(draws, silent)
        # voices alone, with nobody in front, would ask the model to guess which of them is unwanted
        babble = draws.chance(config.babble, batch_size) & ~silent
        low, high = config.babble_voices
        voices = np.where(babble, draws.host.integers(low, high + 1, batch_size), 0)
        added = self._noise(draws, voices)
        snr = draws.host.uniform(*config.snr_db, batch_size)
        snr = np.where(babble, np.maximum(snr, lowest_snr(np.maximum(voices, 1), config)), snr)
        gain = noise_gain(speech, added, draws.send(snr).float()[:, None], self.rate)
        noisy = speech + added * gain * draws.send(~alone)[:, None]
        noisy, clean = self._band_limit(draws, noisy, clean)
        noisy, clean = self._set_level(draws, noisy, clean)
        return self._line(draws, noisy, clean)

    def _speech(self, draws: Draws, silent: np.ndarray) -> Batch:
        """(as the microphone hears it, target); nothing where silent."""
        config, n = self.config, len(silent)
        past = self.room_length if config.room > 0 else 0
        size = self.length + past
        spans = self._voices[draws.host.integers(len(self._voices), size=n)]
        chosen = draws.chance(config.speech_equaliser, n)
        gains = device_noise.equaliser(draws, chosen, size, self.rate, config.equaliser_db)
        x = self._crops(draws, spans, size, config.speech_speed, config.min_activity, gains)
        late = draws.chance(config.late_start, n)
        begin = np.where(late, past + (draws.host.uniform(0, 0.5, n) * self.length).astype(np.int64), 0)
        begin[silent] = size
        x = x * (torch.arange(size, device=self.device) >= draws.send(begin)[:, None])
        heard, target = x[:, past:].clone(), x[:, past:].clone()
        in_room = draws.chance(config.room, n)
        if in_room.any():
            rows = draws.rows(in_room)
            early = max(round(config.early_seconds * self.rate), 1)
            heard[rows], target[rows] = reverberate(x[rows], self._responses(draws, len(rows)), self.length, early)
        return heard, target

    def _noise(self, draws: Draws, voices: np.ndarray) -> Tensor:
        """Noise (n, L) at any level; of most of each row so many voices, of other noise where that is 0."""
        config, n, babble = self.config, len(voices), voices > 0
        second = draws.chance(config.second_noise, n)
        single = self._single_noises(draws, int((~babble).sum() + second.sum()))
        mixture = torch.zeros(n, self.length, device=self.device)
        first = int((~babble).sum())
        mixture[draws.rows(~babble)] = single[:first]
        if babble.any():
            mixture[draws.rows(babble)] = self._babble(draws, voices[babble])
        if second.any():
            rows, other = draws.rows(second), single[first:]
            gain = noise_gain(mixture[rows], other, draws.uniform(0, 15, len(rows), 1), self.rate)
            mixture[rows] += other * gain
        equalised, wandering = draws.chance(config.noise_equaliser, n), draws.chance(config.wander, n)
        gains = device_noise.equaliser(draws, equalised, self.length, self.rate, 2 * config.equaliser_db)
        mixture = torch.fft.irfft(torch.fft.rfft(mixture) * gains, self.length)
        level = device_noise.wander(draws, n, self.length, self.rate, 4.0)
        return mixture * torch.where(draws.send(wandering)[:, None], level, torch.ones_like(level))

    def _single_noises(self, draws: Draws, n: int) -> Tensor:
        """(n, L): recorded, made by rule, or with the spectrum of a voice."""
        config = self.config
        out = torch.zeros(n, self.length, device=self.device)
        by_rule = draws.chance(config.rule_noise, n) | (len(self._noises) == 0)
        shaped = by_rule & draws.chance(config.speech_shaped, n)
        if shaped.any():
            count = int(shaped.sum())
            spans = self._voices[draws.host.integers(len(self._voices), size=count)]
            voice = self._crops(draws, spans, self.length, (1.0, 1.0), 0.3)
            out[draws.rows(shaped)] = device_noise.spectral_noise(draws, torch.fft.rfft(voice).abs(), self.length)
        by_rule &= ~shaped
        if by_rule.any():
            out[draws.rows(by_rule)] = device_noise.make(draws, int(by_rule.sum()), self.length, self.rate)
        recorded = ~(by_rule | shaped)
        if recorded.any():
            count = int(recorded.sum())
            spans = self._noises[draws.host.choice(len(self._noises), count, p=self._noise_chances)]
            x = self._crops(draws, spans, self.length, config.noise_speed)
            white = draws.normal(count, self.length)  # in place of digital silence, which is no noise
            out[draws.rows(recorded)] = torch.where(x.any(-1, keepdim=True), x, white)
        return out

    def _babble(self, draws: Draws, counts: np.ndarray) -> Tensor:
        """So many voices in each row, each 0 to 6 dB below the loudest, often in one room; (n, L)."""
        size, n = self.length + self.room_length, len(counts)
        row = np.repeat(np.arange(n), counts)
        spans = self._voices[draws.host.integers(len(self._voices), size=len(row))]
        voices = self._crops(draws, spans, size, (1.0, 1.0), 0.3)
        voices *= from_db(-draws.uniform(0, 6, len(row), 1)) / active_rms(voices, self.rate).clamp(min=1e-4)
        member = draws.send((np.arange(n)[:, None] == row).astype(np.float32))
        total = member @ voices  # (n, rows) @ (rows, size): a sum in one order, unlike index_add
        out = total[:, self.room_length :].clone()
        in_room = draws.chance(0.5, n)
        if in_room.any():
            rows = draws.rows(in_room)
            responses = self._responses(draws, len(rows))
            out[rows], _ = reverberate(total[rows], responses, self.length, round(0.05 * self.rate))
        return out

    def _crops(
        self,
        draws: Draws,
        spans: np.ndarray,
        length: int,
        speed: tuple[float, float],
        min_activity: float = 0.0,
        gains: Tensor | None = None,
    ) -> Tensor:
        """(n, length) from random places of spans (n, 2), at random speeds, spectra multiplied by gains (n, bins)."""
        n, sizes = len(spans), np.array([length])
        if speed != (1.0, 1.0):
            choices = filters.smooth_sizes(round(length * speed[0]), round(length * speed[1]))
            sizes = choices[draws.host.integers(len(choices), size=min(SPEEDS, n))]
        groups = np.array_split(np.arange(n), len(sizes))
        places = self._places(draws, spans, np.repeat(sizes, [len(g) for g in groups]), min_activity)
        pieces = []
        for group, size in zip(groups, sizes.tolist(), strict=True):
            x = self._read(draws, Places(*(field[group] for field in places)))
            if size != length or gains is not None:
                bins = torch.fft.rfft(x)[:, : length // 2 + 1]
                if gains is not None:
                    bins = bins * gains[group[0] : group[-1] + 1, : bins.shape[1]]
                x = torch.fft.irfft(bins, length) * (length / size)
            pieces.append(x)
        return torch.cat(pieces)

    def _places(self, draws: Draws, spans: np.ndarray, sizes: np.ndarray, min_activity: float) -> Places:
        start, stop = spans.T
        length, n = stop - start, len(spans)
        begin = start[:, None] + draws.host.integers(0, np.maximum(length - sizes, 0)[:, None] + 1, (n, _TRIES))
        pick = np.zeros(n, np.int64)
        if min_activity:
            end = begin + sizes[:, None]
            # judged where the crop itself will lie, not in the past that only feeds a room
            first = np.minimum(np.maximum(begin, end - self.length), stop[:, None] - 1)
            enough = self.bank.activity(first, end) >= min_activity
            pick = np.where(enough.any(1), enough.argmax(1), _TRIES - 1)
        turn = length + (draws.host.random(n) * length).astype(np.int64)
        inside = (draws.host.random(n) * turn).astype(np.int64)
        short = length < sizes
        offset = np.where(short, inside, begin[np.arange(n), pick] - start)
        return Places(sizes, start, length, offset, np.where(short, turn, _NEVER))

    def _read(self, draws: Draws, places: Places) -> Tensor:
        """(n, size) float32, one size for all rows."""
        at = torch.arange(int(places.size[0]), device=self.device) + draws.send(places.offset)[:, None]
        if (places.period < _NEVER).any():
            at = at % draws.send(places.period)[:, None]
        length = draws.send(places.length)[:, None]
        x = self._audio[torch.minimum(at, length - 1) + draws.send(places.start)[:, None]] * float(INT16)
        return x * (at < length)

    def _responses(self, draws: Draws, n: int) -> Tensor:
        """(n, R), from files or simulated."""
        out = simulate(draws, n, self.room_length, self.rate)
        recorded = ~draws.chance(self.config.simulated_room, n)
        if len(self._rooms) and recorded.any():
            chosen = draws.send(draws.host.integers(len(self._rooms), size=int(recorded.sum())))
            out[draws.rows(recorded)] = self._rooms[chosen]
        return out

    def _band_limit(self, draws: Draws, noisy: Tensor, clean: Tensor) -> Batch:
        chosen = draws.chance(self.config.band_limit, len(noisy))
        if chosen.any():
            rows = draws.rows(chosen)
            cutoff = np.log(draws.host.uniform(*self.config.band_limit_hz, len(rows)))[:, None]
            over = (filters.log_frequency(self.length, self.rate) - cutoff) / np.log(1.125)  # eighths above it
            gain = from_db(-60 * draws.send(np.clip(over, 0, 1)).float())
            for x in (noisy, clean):
                x[rows] = torch.fft.irfft(torch.fft.rfft(x[rows]) * gain, self.length)
        return noisy, clean

    def _set_level(self, draws: Draws, noisy: Tensor, clean: Tensor) -> Batch:
        level = draws.uniform(*self.config.level_dbfs, len(noisy), 1)
        gain = torch.minimum(from_db(level) / rms(noisy).clamp(min=1e-6), PEAK / _peak(noisy, clean).clamp(min=1e-6))
        return noisy * gain, clean * gain

    def _line(self, draws: Draws, noisy: Tensor, clean: Tensor) -> Batch:
        """Clipping, companding, coding and lost packets."""
        config, n = self.config, len(noisy)
        ceiling = _peak(noisy) * from_db(-draws.uniform(1, 10, n, 1))
        ceiling = torch.where(draws.send(draws.chance(config.clipping, n))[:, None], ceiling, 2.0)
        noisy = torch.minimum(torch.maximum(noisy, -ceiling), ceiling)
        squeezed = draws.chance(config.companding, n)
        if squeezed.any():
            rows = draws.rows(squeezed)
            x = noisy[rows]
            steps = (x.sign() * torch.log1p(255 * x.abs()) * (127 / _LOG_256)).round() / 127
            noisy[rows] = steps.sign() * torch.expm1(steps.abs() * _LOG_256) / 255
        coded = draws.chance(config.codec, n)
        if coded.any():
            rows = draws.rows(coded)
            noisy[rows] = codec.squeeze(noisy[rows], draws.uniform(*config.codec_step, len(rows), 1)).clamp(-1, 1)
        gaps = draws.host.integers(1, 5, n) * draws.chance(config.gaps, n)
        if gaps.any():
            size = (draws.host.uniform(0.01, 0.04, (n, 4)) * self.rate).astype(np.int64)
            begin = (draws.host.random((n, 4)) * np.maximum(self.length - size, 1)).astype(np.int64)
            size[np.arange(4) >= gaps[:, None]] = 0
            t = torch.arange(self.length, device=self.device)
            lost = (t >= draws.send(begin)[:, :, None]) & (t < draws.send(begin + size)[:, :, None])
            kept = ~lost.any(1)
            noisy, clean = noisy * kept, clean * kept
        return noisy, clean


def active_rms(x: Tensor, sample_rate: int) -> Tensor:
    """(n, L) -> (n, 1), as `mixing.active_rms`; 0 for silence."""
    size = max(min(sample_rate // 50, x.shape[1]), 1)
    power = x[:, : x.shape[1] // size * size].unflatten(1, (-1, size)).square().mean(-1)
    active = power >= power.amax(-1, keepdim=True) * 10 ** (-QUIET_DB / 10)
    return ((power * active).sum(-1, keepdim=True) / active.sum(-1, keepdim=True)).sqrt()


def noise_gain(speech: Tensor, noise: Tensor, snr_db: Tensor, sample_rate: int) -> Tensor:
    """(n, 1), as `mixing.noise_gain`: 1 where either is silent."""
    signal, disturbance = active_rms(speech, sample_rate), active_rms(noise, sample_rate)
    gain = signal / disturbance.clamp(min=1e-12) * from_db(-snr_db)
    return torch.where((signal > 0) & (disturbance > 0), gain, torch.ones_like(gain))


def _peak(*waves: Tensor) -> Tensor:
    return torch.stack([x.abs().amax(-1, keepdim=True) for x in waves]).amax(0)
