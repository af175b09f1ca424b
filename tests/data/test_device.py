"""Mixing on a device, run on the CPU: what was asked for is met, and the pairs are those of the mixer on the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from semamba.data import mixing, noise, rooms
from semamba.data.bank import SpeechBank
from semamba.data.device import DeviceMixer, active_rms
from semamba.data.device_noise import equaliser, make
from semamba.data.device_rooms import reverberate, simulate
from semamba.data.draws import Draws
from semamba.data.mixing import PROBABILITIES, MixConfig, Mixer

PLAIN = replace(MixConfig(crop_seconds=1.0), **dict.fromkeys(PROBABILITIES, 0.0))
CPU = torch.device("cpu")


def draw(bank: SpeechBank, mix: MixConfig, rows: int = 8, index: int = 0) -> tuple[Tensor, Tensor]:
    return DeviceMixer(bank, mix).batch(index, rows)


def decibels(ratio: Tensor) -> Tensor:
    return 20 * torch.log10(ratio)


@pytest.mark.parametrize("snr", [-5.0, 20.0])
@pytest.mark.parametrize("source", ["recorded", "babble", "rule_noise", "room"])
def test_snr_is_met(bank: SpeechBank, snr: float, source: str) -> None:
    mix = replace(PLAIN, snr_db=(snr, snr), voice_gap_db=-20.0, early_seconds=1.0, simulated_room=1.0)
    if source != "recorded":
        mix = replace(mix, **{source: 1.0})
    noisy, clean = draw(bank, mix)
    measured = decibels(active_rms(clean, 16000) / active_rms(noisy - clean, 16000))
    assert torch.allclose(measured, torch.full_like(measured, snr), atol=0.5)


@pytest.mark.parametrize(("voices", "snr"), [(1, 8.0), (4, 2.0), (10, -2.0)])
def test_voices_stay_below_the_speaker(bank: SpeechBank, voices: int, snr: float) -> None:
    many = replace(PLAIN, babble=1.0, babble_voices=(voices, voices), voice_gap_db=8.0, snr_db=(-5.0, -5.0))
    noisy, clean = draw(bank, many)
    measured = decibels(active_rms(clean, 16000) / active_rms(noisy - clean, 16000))
    assert torch.allclose(measured, torch.full_like(measured, snr), atol=0.1)


def test_levels_are_met_without_clipping(bank: SpeechBank) -> None:
    noisy, _ = draw(bank, replace(PLAIN, level_dbfs=(-30.0, -30.0)))
    level = decibels(noisy.square().mean(-1).sqrt())
    assert torch.allclose(level, torch.full_like(level, -30.0), atol=0.01)
    noisy, clean = draw(bank, replace(PLAIN, level_dbfs=(0.0, 0.0)))
    assert float(torch.maximum(noisy.abs(), clean.abs()).amax(-1).sub(0.99).abs().max()) < 1e-5


@pytest.mark.parametrize("name", PROBABILITIES)
def test_every_augmentation_is_finite_and_in_range(bank: SpeechBank, name: str) -> None:
    check_range(*draw(bank, replace(PLAIN, **{name: 1.0})), (8, 16000))


def test_defaults_are_finite_and_in_range_at_odd_sizes(bank: SpeechBank) -> None:
    mixer = DeviceMixer(bank, MixConfig(crop_seconds=0.7))
    for index, rows in enumerate((1, 3, 17, 24)):
        check_range(*mixer.batch(index, rows), (rows, 11200))


def check_range(noisy: Tensor, clean: Tensor, shape: tuple[int, int]) -> None:
    for x in (noisy, clean):
        assert x.shape == shape and x.dtype == torch.float32
        assert x.isfinite().all() and x.abs().max() <= 1
    assert (noisy.abs().amax(-1) > 1e-4).all()


def test_a_batch_depends_on_seed_epoch_and_index_alone(bank: SpeechBank) -> None:
    mix = MixConfig(crop_seconds=0.5)
    first = DeviceMixer(bank, mix, seed=1).batch(5, 4)
    rest = list(DeviceMixer(bank, mix, seed=1).batches(4, steps=2, start=4))
    assert all(torch.equal(a, b) for a, b in zip(first, rest[1], strict=True))
    assert not torch.equal(first[0], rest[0][0])
    for other in (DeviceMixer(bank, mix, seed=2), DeviceMixer(bank, mix, seed=1, epoch=1)):
        assert not torch.equal(first[0], other.batch(5, 4)[0])


def test_processes_have_rows_of_their_own(bank: SpeechBank) -> None:
    mix = MixConfig(crop_seconds=0.5)
    parts = [DeviceMixer(bank, mix, share=(part, 2)).batch(3, 8)[0] for part in (0, 1)]
    assert all(part.shape == (4, 8000) for part in parts) and not torch.equal(*parts)


def test_rows_of_a_batch_differ(bank: SpeechBank) -> None:
    noisy, _ = draw(bank, MixConfig(crop_seconds=0.5), rows=16)
    assert len({tuple(row.tolist()) for row in noisy[:, :50]}) == 16


def test_the_target_is_aligned_and_scaled_with_the_mixture(bank: SpeechBank) -> None:
    noisy, clean = draw(bank, replace(PLAIN, clean_only=1.0, speech_equaliser=1.0, band_limit=1.0, late_start=1.0))
    assert torch.equal(noisy, clean)
    noisy, clean = draw(bank, replace(PLAIN, snr_db=(10.0, 10.0)))
    lags = torch.fft.irfft(torch.fft.rfft(noisy) * torch.fft.rfft(clean).conj())
    assert (lags.roll(1000, -1)[:, :2000].argmax(-1) == 1000).all()  # the test's syllables repeat every 8,000


def test_the_target_keeps_the_room_as_long_as_asked(bank: SpeechBank) -> None:
    mix = replace(PLAIN, clean_only=1.0, room=1.0)
    gaps = []
    for early in (0.05, 1.0):
        noisy, clean = draw(bank, replace(mix, early_seconds=early, simulated_room=1.0))
        gaps.append(float((noisy - clean).square().sum() / noisy.square().sum()))
    assert gaps[0] > 100 * gaps[1]


def test_what_is_silent_and_what_is_lost(bank: SpeechBank) -> None:
    noisy, clean = draw(bank, replace(PLAIN, noise_only=1.0))
    assert not clean.any() and noisy.any(-1).all()
    noisy, clean = draw(bank, replace(PLAIN, gaps=1.0, clean_only=1.0))
    assert torch.equal(noisy, clean)
    longest = torch.nn.functional.max_pool1d((noisy != 0).float()[:, None], 160, 1)
    assert (longest.amin(-1) == 0).all()
    noisy, clean = draw(bank, replace(PLAIN, clipping=1.0, clean_only=1.0))
    top = noisy.abs().amax(-1, keepdim=True)
    assert ((noisy.abs() >= top).sum(-1) > 1).all() and (clean.abs().amax(-1, keepdim=True) > top).all()


def test_band_limit_empties_the_top(bank: SpeechBank) -> None:
    for x in draw(bank, replace(PLAIN, band_limit=1.0, band_limit_hz=(4000.0, 4000.0))):
        power = torch.fft.rfft(x).abs().square()
        assert (power[:, 4600:].sum(-1) < 1e-4 * power.sum(-1)).all()


def test_speech_is_sought(bank: SpeechBank) -> None:
    mix = replace(PLAIN, crop_seconds=0.2, min_activity=0.9, clean_only=1.0, level_dbfs=(-30.0, -30.0))
    frames = draw(bank, mix, rows=64)[1].unflatten(1, (-1, 160))
    assert float((frames.square().mean(-1) > 1e-5).float().mean()) > 0.85


def test_a_bank_of_speech_alone_and_shorter_than_the_crop(bank: SpeechBank) -> None:
    speech = [track for track in bank.tracks if track.kind == "speech"][:1]
    check_range(*draw(SpeechBank(bank.audio, speech), MixConfig(crop_seconds=4.0), rows=12), (12, 64000))


def test_the_same_statistics_as_on_the_host(bank: SpeechBank) -> None:
    """Means of level, SNR, share of speech in the energy and of silent targets, within four standard errors."""
    mix, count = MixConfig(crop_seconds=0.5, noise_only=0.2, room=0.5), 320
    host = Mixer(bank, mix)
    pairs = [host.sample(np.random.default_rng([9, i])) for i in range(count)]
    ours = [draw(bank, mix, 32, i) for i in range(count // 32)]
    expected = describe(*(torch.from_numpy(np.stack(x)) for x in zip(*pairs, strict=True)))
    found = describe(*(torch.cat(x) for x in zip(*ours, strict=True)))
    for name in expected:
        a, b = expected[name], found[name]
        error = float((a.var() / len(a) + b.var() / len(b)).sqrt())
        assert abs(float(a.mean() - b.mean())) < 4 * error, name


def describe(noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
    silent = clean.abs().amax(-1) == 0
    speech, rest = active_rms(clean, 16000)[:, 0], active_rms(noisy - clean, 16000)[:, 0]
    power = torch.fft.rfft(noisy).abs().square()
    return {
        "level": decibels(noisy.square().mean(-1).sqrt()),
        "snr": decibels(speech / rest)[(speech > 0) & (rest > 1e-5)],
        "silent": silent.float(),
        "treble": power[:, 1000:].sum(-1).div(power.sum(-1)),
    }


def test_noise_by_rule_of_every_kind() -> None:
    draws = Draws(CPU, 0)
    for length in (16000, 3201):
        x = make(draws, 60, length, 16000)
        assert x.shape == (60, length) and x.isfinite().all()
        assert torch.allclose(x.square().mean(-1), torch.ones(60), rtol=1e-4)


@pytest.mark.parametrize("kind", sorted({maker.__name__ for maker in noise.MAKERS}))
def test_noise_has_the_spectrum_and_the_peaks_of_the_host(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = getattr(noise, kind)
    monkeypatch.setattr(noise, "MAKERS", (maker,))
    count, length = 150, 8000
    ours = make(Draws(CPU, 1), count, length, 16000)
    rng = np.random.default_rng(1)
    theirs = torch.from_numpy(np.stack([noise.make(rng, length, 16000) for _ in range(count)]))
    for measure in (crest, centroid):
        a, b = measure(ours), measure(theirs)
        error = float((a.var() / count + b.var() / count).sqrt())
        assert abs(float(a.mean() - b.mean())) < 4.5 * error, measure.__name__


def crest(x: Tensor) -> Tensor:
    return decibels(x.abs().amax(-1))


def centroid(x: Tensor) -> Tensor:
    """Mean position of the amplitude spectrum, in octaves."""
    size = torch.fft.rfft(x).abs()[:, 1:]
    return (size * torch.log2(torch.arange(1.0, size.shape[1] + 1))).sum(-1) / size.sum(-1)


def test_simulated_rooms_have_a_direct_sound_and_a_tail_in_range() -> None:
    response = simulate(Draws(CPU, 0), 200, 16000, 16000)
    assert (response[:, 0] == 1).all() and not response[:, 1:30].any()
    late = decibels(response[:, 1:].square().sum(-1).sqrt())
    assert late.min() > -15.1 and late.max() < 3.1
    assert (response[:, 8000:].square().sum(-1) < 0.05 * response[:, 1:].square().sum(-1)).all()


def test_rooms_and_levels_agree_with_the_host() -> None:
    rng = np.random.default_rng(0)
    speech, response = rng.standard_normal((1, 1800)).astype(np.float32), rng.standard_normal(900).astype(np.float32)
    found = reverberate(torch.from_numpy(speech), torch.from_numpy(response)[None], 900, 100)
    for a, b in zip(found, rooms.reverberate(speech[0], response, 900, 100), strict=True):
        assert np.allclose(a[0].numpy(), b, atol=1e-4)
    for x in (speech, np.zeros_like(speech)):
        assert float(active_rms(torch.from_numpy(x), 16000)) == pytest.approx(mixing.active_rms(x[0], 16000), rel=1e-5)


def test_rows_that_are_not_chosen_keep_their_spectrum() -> None:
    gains = equaliser(Draws(CPU, 0), np.array([True, False]), 1000, 16000, 2.0)
    assert torch.equal(gains[1], torch.ones(501)) and float(gains[0].std()) > 0.01
