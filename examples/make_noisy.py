"""Makes examples/noisy.wav: a synthesised sentence in synthesised noise, so that no recording is needed.

The voice is a small formant synthesiser after Klatt (1980), "Software for a cascade/parallel formant synthesizer":
a train of glottal pulses and breath noise run through a cascade of moving resonators, with hiss beside it for
consonants.
It says, roughly: "Hello, the noise is going away now. Can you hear me?"

    python examples/make_noisy.py [--out noisy.wav] [--clean clean.wav] [--snr 5]
"""

from __future__ import annotations

import argparse
import math
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float64]

RATE = 16_000

# Sound: three formants in Hz, voicing, breath, hiss (amplitudes), centre of the hiss in Hz.
SOUNDS: dict[str, tuple[float, ...]] = {
    "_": (500, 1500, 2500, 0.0, 0.0, 0.0, 4000),
    "h": (550, 1800, 2500, 0.0, 0.25, 0.0, 4000),
    "e": (550, 1800, 2500, 1.0, 0.0, 0.0, 4000),
    "l": (360, 1050, 2800, 0.7, 0.0, 0.0, 4000),
    "o": (520, 900, 2300, 1.0, 0.0, 0.0, 4000),
    "u": (320, 900, 2250, 0.9, 0.0, 0.0, 4000),
    "dh": (300, 1300, 2550, 0.4, 0.02, 0.04, 5500),
    "@": (500, 1450, 2450, 0.8, 0.0, 0.0, 4000),
    "n": (260, 1650, 2600, 0.5, 0.0, 0.0, 4000),
    "ng": (260, 2100, 2700, 0.5, 0.0, 0.0, 4000),
    "m": (250, 1050, 2200, 0.5, 0.0, 0.0, 4000),
    "i": (400, 2000, 2600, 0.9, 0.0, 0.0, 4000),
    "I": (290, 2250, 2950, 0.9, 0.0, 0.0, 4000),
    "z": (280, 1700, 2550, 0.4, 0.0, 0.16, 5800),
    "g": (250, 1900, 2300, 0.15, 0.0, 0.0, 2200),
    "g!": (300, 1700, 2300, 0.5, 0.05, 0.15, 2200),
    "k": (300, 1900, 2400, 0.0, 0.0, 0.0, 2400),
    "k!": (400, 1900, 2400, 0.0, 0.2, 0.35, 2400),
    "w": (300, 650, 2250, 0.7, 0.0, 0.0, 4000),
    "ae": (680, 1700, 2450, 1.0, 0.0, 0.0, 4000),
    "a": (740, 1250, 2550, 1.0, 0.0, 0.0, 4000),
    "r": (340, 1150, 1650, 0.8, 0.0, 0.0, 4000),
}

# The sentence: (sound, seconds).
HELLO = [("_", 0.30), ("h", 0.07), ("e", 0.09), ("l", 0.08), ("o", 0.13), ("u", 0.12), ("_", 0.18)]
NOISE = [("dh", 0.05), ("@", 0.06), ("n", 0.08), ("o", 0.12), ("I", 0.11), ("z", 0.10)]
GOING = [("i", 0.08), ("z", 0.09), ("g", 0.05), ("g!", 0.02), ("o", 0.10), ("u", 0.05), ("i", 0.07), ("ng", 0.09)]
AWAY = [("@", 0.07), ("w", 0.08), ("e", 0.10), ("I", 0.12), ("n", 0.09), ("a", 0.16), ("u", 0.15), ("_", 0.30)]
CAN_YOU = [("k", 0.03), ("k!", 0.05), ("ae", 0.11), ("n", 0.07), ("I", 0.06), ("u", 0.11)]
HEAR_ME = [("h", 0.07), ("I", 0.13), ("r", 0.12), ("m", 0.08), ("I", 0.22), ("_", 0.40)]
SENTENCE = HELLO + NOISE + GOING + AWAY + CAN_YOU + HEAR_ME

# Melody: (second, Hz); a statement that falls, then a question that rises.
MELODY = ((0.0, 120), (0.45, 150), (0.75, 118), (1.25, 142), (1.9, 120), (2.3, 128), (2.75, 92), (3.1, 125), (4.1, 185))

BANDWIDTHS = (70.0, 100.0, 140.0, 250.0, 350.0)
UPPER_FORMANTS = (3500.0, 4500.0)


def smooth(track: Signal, seconds: float) -> Signal:
    """Hann-weighted moving average: the articulators do not jump."""
    window = np.hanning(max(3, int(seconds * RATE)))
    padded = np.pad(track, len(window) // 2, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")[: len(track)]


def glottal_flow(pitch: Signal, rng: np.random.Generator) -> Signal:
    """Derivative of the flow through the glottis, one pulse a period (the polynomial of Klatt's KLGLOTT88)."""
    flow = np.zeros(len(pitch))
    start, open_share = 0.0, 0.6
    while start < len(pitch) - 1:
        period = RATE / pitch[int(start)] * (1 + 0.01 * rng.standard_normal())
        size = 1 + 0.04 * rng.standard_normal()
        first, last = math.ceil(start), min(len(pitch), math.ceil(start + open_share * period))
        phase = (np.arange(first, last) - start) / (open_share * period)  # 0 .. 1 while the glottis is open
        flow[first:last] = size * (2 * phase - 3 * phase**2)
        start += period
    return flow


def resonate(signal: Signal, centre: Signal, bandwidth: float) -> Signal:
    """One resonator whose centre moves from sample to sample; gain 1 at zero frequency."""
    radius = math.exp(-math.pi * bandwidth / RATE)
    feedback = (2 * radius * np.cos(2 * np.pi * centre / RATE)).tolist()
    result, y1, y2 = [], 0.0, 0.0
    for x, b in zip(signal.tolist(), feedback, strict=True):
        y1, y2 = (1 - b + radius * radius) * x + b * y1 - radius * radius * y2, y1
        result.append(y1)
    return np.array(result)


def speak(rng: np.random.Generator) -> Signal:
    """The sentence, about four seconds, peak 0.5."""
    counts = [int(seconds * RATE) for _, seconds in SENTENCE]
    targets = np.repeat(np.array([SOUNDS[sound] for sound, _ in SENTENCE]), counts, axis=0)  # (samples, 7)
    f1, f2, f3 = (smooth(targets[:, i], 0.06) for i in range(3))
    voicing, breath, hiss = (smooth(targets[:, i], 0.03) for i in range(3, 6))
    seconds = np.arange(len(targets)) / RATE
    pitch = smooth(np.interp(seconds, *np.array(MELODY).T), 0.1)

    breath = breath + 0.02 * voicing  # a voice is never pure pulses
    source = voicing * glottal_flow(pitch, rng) + 0.3 * breath * rng.standard_normal(len(pitch))
    source = source - 0.5 * np.concatenate([[0.0], source[:-1]])  # a bright voice: less fall towards high frequencies
    centres = [f1, f2, f3, *(np.full_like(f1, formant) for formant in UPPER_FORMANTS)]
    for centre, bandwidth in zip(centres, BANDWIDTHS, strict=True):
        source = resonate(source, centre, bandwidth)
    noise = np.diff(rng.standard_normal(len(pitch)), prepend=0.0)
    speech = source + 0.12 * hiss * resonate(noise, targets[:, 6], 1200.0)
    return 0.5 * speech / np.abs(speech).max()


def background(count: int, rng: np.random.Generator) -> Signal:
    """A room with a fan: pink noise that swells and fades, and a hum with harmonics."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(count, 1 / RATE), 40.0))
    pink = np.fft.irfft(spectrum, count)
    seconds = np.arange(count) / RATE
    pink *= 1 + 0.25 * np.sin(2 * np.pi * 0.6 * seconds) + 0.1 * np.sin(2 * np.pi * 2.3 * seconds)
    hum = sum(np.sin(2 * np.pi * 98 * k * seconds + k) / k for k in (1, 2, 3, 5))
    return pink / pink.std() + 0.35 * np.asarray(hum)


def write_wav(path: Path, signal: Signal) -> None:
    """16-bit mono."""
    samples = np.clip(np.round(signal * 32767), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def make(snr: float = 5.0) -> tuple[Signal, Signal]:
    """(clean, noisy), the same on every run; `snr` in dB over the whole length."""
    rng = np.random.default_rng(2024)
    clean = speak(rng)
    noise = background(len(clean), rng)
    noise *= np.sqrt((clean**2).mean() / (noise**2).mean() / 10 ** (snr / 10))
    scale = 0.9 / np.abs(clean + noise).max()
    return clean * scale, (clean + noise) * scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("noisy.wav"))
    parser.add_argument("--clean", type=Path, help="also write the sentence without noise")
    parser.add_argument("--snr", type=float, default=5.0, help="speech over noise in dB")
    arguments = parser.parse_args()
    clean, noisy = make(arguments.snr)
    write_wav(arguments.out, noisy)
    if arguments.clean:
        write_wav(arguments.clean, clean)


if __name__ == "__main__":
    main()
