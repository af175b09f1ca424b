"""Draws docs/images/sheet.png: spectrograms of noisy, enhanced and clean for pairs of recordings, a row for each.

    python examples/make_sheet.py FOLDER ... [--each 4] [--model NAME] [--out PICTURE]

A FOLDER holds clean/ and noisy/. The files are taken at equal distances from the sorted list, not chosen.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from make_picture import EXAMPLES, decibels
from PIL import Image

import semamba
from semamba import audio
from semamba.metrics.pairs import find_pairs

matplotlib.use("Agg")  # no window is needed
import matplotlib.pyplot as plt  # noqa: E402

SECONDS = 4.0  # of each file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--each", type=int, default=4, help="files of each folder")
    parser.add_argument("--model", help="a shipped model or a folder with weights; without it the default")
    parser.add_argument("--out", type=Path, default=EXAMPLES.parent / "docs" / "images" / "sheet.png")
    arguments = parser.parse_args()

    enhancer = semamba.load(arguments.model, device="cpu")
    rows = []
    for folder in arguments.folders:
        files, _ = find_pairs(folder / "clean", folder / "noisy")
        places = np.linspace(0, len(files) - 1, min(arguments.each, len(files))).round().astype(int)
        rows += [(f"{folder.name}\n{files[place][0]}", *files[place][1:]) for place in places]

    figure, grid = plt.subplots(len(rows), 3, figsize=(12, 1.25 * len(rows)), layout="constrained", dpi=80)
    for axes, (name, clean_path, noisy_path) in zip(grid, rows, strict=True):
        (noisy, rate), (clean, _) = audio.read(noisy_path), audio.read(clean_path)
        waves = [np.squeeze(wave) for wave in (noisy, enhancer(noisy, rate), clean)]
        top = float(decibels(waves[2]).max())  # files differ in level
        for axis, wave in zip(axes, waves, strict=True):
            picture = decibels(wave[: round(SECONDS * rate)])
            axis.imshow(picture, origin="lower", aspect="auto", cmap="magma", vmin=top - 70, vmax=top)
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(name[:40], fontsize=6)
    for axis, title in zip(grid[0], ("noisy", enhancer.name, "clean"), strict=True):
        axis.set_title(title)
    figure.supxlabel(f"the first {SECONDS:g} s; 0 to 8 kHz", fontsize=8)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).quantize(48).save(arguments.out, optimize=True)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
