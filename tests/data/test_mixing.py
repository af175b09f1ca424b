"""The mixer: SNR, alignment, ranges, determinism, every augmentation finite and of the right length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semamba import config
from semamba.data import filters, noise, rooms
from semamba.data.bank import SpeechBank
from semamba.data.mixing import PROBABILITIES, MixConfig, Mixer, active_rms, noise_gain
from semamba.errors import SemambaError

PLAIN = replace(MixConfig(crop_seconds=1.0), **dict.fromkeys(PROBABILITIES, 0.0))


def draw(bank: SpeechBank, mix: MixConfig, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return Mixer(bank, mix).sample(np.random.default_rng(seed))


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize("source", ["recorded", "babble", "rule_noise", "room"])
def test_snr_is_met(bank: SpeechBank, snr: float, source: str) -> None:
    mix = replace(PLAIN, snr_db=(snr, snr), voice_gap_db=-20.0, early_seconds=1.0, simulated_room=1.0)
    if source != "recorded":
        mix = replace(mix, **{source: 1.0})
    for seed in range(5):
        noisy, clean = draw(bank, mix, seed)
        # with a room whose whole response is early, but for its fade, the target is the speech that was mixed
        measured = 20 * np.log10(active_rms(clean, 16000) / active_rms(noisy - clean, 16000))
        assert measured == pytest.approx(snr, abs=0.5)


def test_clean_target_is_aligned_and_scaled_with_the_mixture(bank: SpeechBank) -> None:
    noisy, clean = draw(bank, replace(PLAIN, clean_only=1.0, speech_equaliser=1.0, band_limit=1.0, late_start=1.0))
    assert np.array_equal(noisy, clean)
    noisy, clean = draw(bank, replace(PLAIN, snr_db=(10.0, 10.0)))
    lags = np.fft.irfft(np.fft.rfft(noisy) * np.conj(np.fft.rfft(clean)))
    assert int(np.argmax(lags)) == 0
    assert float(noisy @ clean) / float(clean @ clean) == pytest.approx(1, abs=0.05)


def test_room_keeps_the_direct_sound_in_place(bank: SpeechBank) -> None:
    for simulated in (0.0, 1.0):
        for seed in range(5):
            mix = replace(PLAIN, clean_only=1.0, room=1.0, simulated_room=simulated)
            reverberant, early = draw(bank, mix, seed)
            assert not np.array_equal(reverberant, early)
            rest = reverberant - early
            # what differs is only late: it does not contain the target itself
            assert abs(float(rest @ early)) < 0.5 * float(early @ early)


def test_reverberate_equals_convolution() -> None:
    rng = np.random.default_rng(0)
    speech, response = rng.standard_normal((2, 900)).astype(np.float32)
    speech, response = np.concatenate([speech, speech]), rooms.prepare(response, 900)
    assert np.argmax(np.abs(response)) == 0
    wet, early = rooms.reverberate(speech, response, 900, 100)
    head = response[:100].copy()
    head[-20:] *= np.linspace(1, 0, 20)
    scale = 1 / np.sqrt(head @ head)
    assert np.allclose(wet, np.convolve(speech, response)[900:1800] * scale, atol=1e-4)
    assert np.allclose(early, np.convolve(speech, head)[900:1800] * scale, atol=1e-4)


def test_level_range_and_no_clipping(bank: SpeechBank) -> None:
    for seed, level in enumerate((-40.0, -30.0, -20.0)):
        noisy, _ = draw(bank, replace(PLAIN, level_dbfs=(level, level)), seed)
        assert 20 * np.log10(np.sqrt(np.mean(noisy**2))) == pytest.approx(level, abs=0.01)
    noisy, clean = draw(bank, replace(PLAIN, level_dbfs=(0.0, 0.0)))
    assert 0.98 < max(np.abs(noisy).max(), np.abs(clean).max()) <= 0.99 + 1e-6


@pytest.mark.parametrize("name", PROBABILITIES)
def test_every_augmentation_is_finite_and_in_range(bank: SpeechBank, name: str) -> None:
    mix = replace(PLAIN, **{name: 1.0})
    for seed in range(4):
        check_range(*draw(bank, mix, seed), 16000)


def test_defaults_are_finite_and_in_range(bank: SpeechBank) -> None:
    mixer = Mixer(bank, MixConfig(crop_seconds=0.7))
    for seed in range(60):
        check_range(*mixer.sample(np.random.default_rng(seed)), 11200)


def check_range(noisy: np.ndarray, clean: np.ndarray, length: int) -> None:
    for x in (noisy, clean):
        assert x.shape == (length,) and x.dtype == np.float32
        assert np.isfinite(x).all() and np.abs(x).max() <= 1
    assert np.abs(noisy).max() > 1e-4


@pytest.mark.parametrize(("voices", "snr"), [(1, 8.0), (4, 2.0), (10, -2.0)])
def test_voices_stay_below_the_speaker(bank: SpeechBank, voices: int, snr: float) -> None:
    many = replace(PLAIN, babble=1.0, babble_voices=(voices, voices), voice_gap_db=8.0)
    noisy, clean = draw(bank, replace(many, snr_db=(-5.0, -5.0)))
    assert 20 * np.log10(active_rms(clean, 16000) / active_rms(noisy - clean, 16000)) == pytest.approx(snr, abs=0.1)
    noisy, clean = draw(bank, replace(many, snr_db=(15.0, 15.0)))
    assert 20 * np.log10(active_rms(clean, 16000) / active_rms(noisy - clean, 16000)) == pytest.approx(15, abs=0.1)


def test_one_voice_in_the_background_is_one_voice(bank: SpeechBank) -> None:
    """Some stretch of the bank itself, where it is not in a room; five voices never are."""
    added = {
        count: [np.subtract(*draw(bank, replace(PLAIN, babble=1.0, babble_voices=(count, count)), s)) for s in range(6)]
        for count in (1, 5)
    }
    one, five = (max(likeness(bank, x) for x in added[count]) for count in (1, 5))
    assert one > 0.99 and five < 0.9


def likeness(bank: SpeechBank, x: np.ndarray) -> float:
    """Largest cosine between `x` and a stretch of the bank's audio as long as it."""
    audio = bank.audio.astype(np.float64)
    size = len(audio) + len(x)
    products = np.fft.irfft(np.fft.rfft(audio, size) * np.conj(np.fft.rfft(x, size)), size)[: len(audio) - len(x) + 1]
    energy = np.cumsum(np.concatenate([[0.0], audio**2]))
    norms = np.sqrt(np.maximum(energy[len(x) :] - energy[: -len(x)], 1e-9)) * np.linalg.norm(x)
    return float(np.max(products / norms))


def test_noise_only_has_a_silent_target(bank: SpeechBank) -> None:
    noisy, clean = draw(bank, replace(PLAIN, noise_only=1.0))
    assert not clean.any() and noisy.any()


def test_clipping_and_gaps_touch_what_they_say(bank: SpeechBank) -> None:
    noisy, clean = draw(bank, replace(PLAIN, clean_only=1.0, clipping=1.0))
    assert np.sum(np.abs(noisy) >= np.abs(noisy).max()) > 1 and np.abs(clean).max() > np.abs(noisy).max()
    noisy, clean = draw(bank, replace(PLAIN, gaps=1.0))
    dead = np.convolve(noisy == 0, np.ones(160), "valid") == 160
    assert dead.any() and np.array_equal(noisy == 0, (noisy == 0) & (clean == 0))


def test_coding_spoils_the_mixture_alone(bank: SpeechBank) -> None:
    noisy, clean = draw(bank, replace(PLAIN, clean_only=1.0, codec=1.0, codec_step=(1.5, 1.5)))
    error = 10 * np.log10(np.mean((noisy - clean) ** 2) / np.mean(clean**2))
    assert -15 < error < -2


def test_band_limit_empties_the_top(bank: SpeechBank) -> None:
    noisy, clean = draw(bank, replace(PLAIN, band_limit=1.0, band_limit_hz=(4000.0, 4000.0)))
    for x in (noisy, clean):
        power = np.abs(np.fft.rfft(x)) ** 2
        assert power[4600:].sum() < 1e-4 * power.sum()


def test_speech_is_sought(bank: SpeechBank) -> None:
    mixer = Mixer(bank, replace(PLAIN, crop_seconds=0.2, min_activity=0.9, clean_only=1.0, level_dbfs=(-30.0, -30.0)))
    frames = [mixer.sample(np.random.default_rng(seed))[1].reshape(-1, 160) for seed in range(30)]
    speaking = [np.mean((x**2).mean(axis=1) > 1e-5) for x in frames]
    assert np.mean(speaking) > 0.85


def test_same_generator_same_pair(bank: SpeechBank) -> None:
    first, again, other = draw(bank, MixConfig(), 3), draw(bank, MixConfig(), 3), draw(bank, MixConfig(), 4)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_a_bank_of_speech_alone_and_shorter_than_the_crop(bank: SpeechBank) -> None:
    speech = [track for track in bank.tracks if track.kind == "speech"][:1]
    small = SpeechBank(bank.audio, speech)
    for seed in range(10):
        check_range(*draw(small, MixConfig(crop_seconds=4.0), seed), 64000)


@pytest.mark.parametrize("maker", sorted({*noise.MAKERS}, key=lambda maker: maker.__name__))
@pytest.mark.parametrize("length", [16000, 3201])
def test_noise_by_rule(maker: noise.Maker, length: int) -> None:
    for seed in range(3):
        x = maker(np.random.default_rng(seed), length, 16000)
        assert x.shape == (length,) and x.dtype == np.float32 and np.isfinite(x).all() and x.any()


def test_speech_shaped_noise_has_the_spectrum_of_its_speech() -> None:
    rng = np.random.default_rng(0)
    low = filters.resample_filter(
        rng.standard_normal(16000, dtype=np.float32), 16000, filters.low_pass(16000, 16000, 1000.0)
    )
    power = np.abs(np.fft.rfft(noise.speech_shaped(rng, low))) ** 2
    assert power[1200:].sum() < 0.01 * power.sum()


def test_resampling_moves_a_tone() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(17600) / 16000).astype(np.float32)
    y = filters.resample_filter(tone, 16000)
    assert int(np.argmax(np.abs(np.fft.rfft(y)))) == 1100
    assert np.sqrt(np.mean(y**2)) == pytest.approx(np.sqrt(0.5), rel=1e-2)


def test_silence_has_no_level() -> None:
    silence, sound = np.zeros(1600, np.float32), np.ones(1600, np.float32)
    assert active_rms(silence, 16000) == 0
    assert noise_gain(silence, sound, 5, 16000) == noise_gain(sound, silence, 5, 16000) == 1


def test_config_refuses_what_makes_no_sense() -> None:
    weights, step = {"noise_weights": {"*": -1}}, {"codec_step": [-1, 1]}
    for wrong in ({"snr_db": [20, -5]}, {"room": 1.5}, {"crop_seconds": 0}, {"noise_speed": [0, 1]}, weights, step):
        with pytest.raises(SemambaError, match=next(iter(wrong)) if "noise_speed" not in wrong else "speeds"):
            config.parse(MixConfig, wrong)
    with pytest.raises(SemambaError, match="snr_dB"):
        config.parse(MixConfig, {"snr_dB": [0, 5]})
    mix = MixConfig(snr_db=(0.0, 5.0))
    assert config.parse(MixConfig, config.to_dict(mix)) == mix


@pytest.mark.parametrize("length", [480, 1600])
def test_rooms_may_be_shorter_than_their_early_part(length: int) -> None:
    rng = np.random.default_rng(0)
    response = rooms.simulate(rng, length, 16000)
    wet, early = rooms.reverberate(rng.standard_normal(4000 + length), response, 4000, 16000)
    assert wet.shape == early.shape == (4000,) and np.isfinite(wet).all() and np.isfinite(early).all()


def test_companding_is_heard(bank: SpeechBank) -> None:
    noisy, clean = draw(bank, replace(PLAIN, clean_only=1.0, companding=1.0))
    assert not np.array_equal(noisy, clean) and len(np.unique(np.abs(noisy))) <= 128
    assert np.mean((noisy - clean) ** 2) < 1e-3 * np.mean(clean**2)


def test_a_late_start_is_silent_first(bank: SpeechBank) -> None:
    def begins(probability: float) -> list[int]:
        mix = replace(PLAIN, clean_only=1.0, late_start=probability)
        return [int(np.argmax(draw(bank, mix, seed)[1] != 0)) for seed in range(12)]

    assert max(begins(0.0)) < 100 and 2000 < max(begins(1.0)) < 8000


def test_noise_wanders_and_a_second_one_joins(bank: SpeechBank) -> None:
    plain = replace(PLAIN, noise_only=1.0, noise_speed=(1.0, 1.0), noise_weights={"*/2.flac": 0.0})

    def spread(mix: MixConfig) -> float:
        frames = [draw(bank, mix, seed)[0].reshape(-1, 400) for seed in range(6)]
        return float(np.mean([10 * np.log10((frame**2).mean(1)).std() for frame in frames]))

    assert spread(plain) < 0.6 and spread(replace(plain, wander=1.0)) > 1.5
    one, two = (
        [likeness(bank, draw(bank, replace(plain, second_noise=p), seed)[0]) for seed in range(6)] for p in (0.0, 1.0)
    )
    assert min(one) > 0.999 and max(two) < 0.995
