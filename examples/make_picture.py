"""Draws docs/images/before_after.png: the spectrograms of examples/noisy.wav and of what the default model makes of it.

python examples/make_picture.py [--model NAME] [--out PICTURE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

import semamba

matplotlib.use("Agg")  # no window is needed
import matplotlib.pyplot as plt  # noqa: E402

EXAMPLES = Path(__file__).parent
FRAME, HOP = 512, 256


def decibels(wave: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Spectrogram (bins, frames) in dB below the loudest point of a full-scale sine."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::HOP] * np.hanning(FRAME)
    magnitude = np.abs(np.fft.rfft(frames, axis=1)).T / (FRAME / 4)
    return 20 * np.log10(np.maximum(magnitude, 1e-7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a shipped model or a folder with weights; without it the default")
    parser.add_argument("--out", type=Path, default=EXAMPLES.parent / "docs" / "images" / "before_after.png")
    arguments = parser.parse_args()

    noisy, rate = soundfile.read(EXAMPLES / "noisy.wav", dtype="float32")
    enhancer = semamba.load(arguments.model, device="cpu")
    panels = {"before": noisy, f"after ({enhancer.name})": enhancer(noisy, sample_rate=rate)}

    figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), sharey=True, layout="constrained", dpi=100)
    for axis, (title, wave) in zip(axes, panels.items(), strict=True):
        extent = (0, len(wave) / rate, 0, rate / 2000)
        image = axis.imshow(
            decibels(wave), origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-90, vmax=-20
        )
        axis.set(title=title, xlabel="time in s")
    axes[0].set_ylabel("frequency in kHz")
    figure.colorbar(image, ax=axes, label="level in dB")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).quantize(64).save(arguments.out, optimize=True)  # a palette: a quarter of the size
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
