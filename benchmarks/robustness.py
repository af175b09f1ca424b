"""What a model does with levels, silence, clean speech and music, written into docs/results.md.

    python benchmarks/robustness.py [--model NAME] [--shared ../shared]

The folder given by --shared holds `data/valid/paired/{clean,noisy}`. Level is the RMS of the noisy file, 0 dBFS that of
a full-scale square wave: from about -20 on, peaks lie beyond full scale, as floating-point samples may. Music is made
here, by rule.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from document import table_row, write_section

import semamba
from semamba import audio
from semamba.errors import SemambaError
from semamba.metrics import report
from semamba.metrics.evaluate import Pair, Scored, evaluate_pairs
from semamba.metrics.pairs import find_pairs
from semamba.metrics.pool import available_cpus

ROOT = Path(__file__).resolve().parents[1]
LEVELS = (-50, -40, -30, -20, -10, 0)
METRICS = ("pesq", "stoi", "si_sdr")
RATE = 16000

Wave = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="name or folder; may be repeated [default: the shipped one]")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results.md")
    options = parser.parse_args()
    models = options.model or [semamba.load(None, device="cpu").name]
    try:
        text = "\n".join(section(name, options.shared / "data/valid/paired") for name in models)
    except SemambaError as error:
        sys.exit(f"error: {error}")
    command = " ".join(f"--model {name}" for name in models)
    head = f"```\npython benchmarks/robustness.py {command} --shared SHARED\n```\n"
    write_section(options.out, "robustness", "robustness", f"\n{head}\n{text}\n")
    print(text)


def section(model: str, folder: Path) -> str:
    """Two tables: scores on valid/paired at every level, and the rest."""
    enhance = semamba.load(model)
    files, unpaired = find_pairs(folder / "clean", folder / "noisy")
    if unpaired:
        raise SemambaError(f"{folder}: files without partner: {', '.join(unpaired)}")
    pairs = [(name, audio.read(clean), audio.read(noisy)) for name, clean, noisy in files]
    lines = [f"**{model}**, valid/paired, {len(pairs)} files", ""]
    lines.append(table_row("RMS of the input", [report.LABELS[metric] for metric in METRICS]))
    lines.append("|---|" + "---:|" * len(METRICS))
    own = scores((name, clean, enhance(noisy, rate), rate) for name, (clean, _), (noisy, rate) in pairs)
    lines.append(values("as recorded", own))
    for level in LEVELS:
        scaled = [(name, clean, to_level(noisy, level), rate) for name, (clean, _), (noisy, rate) in pairs]
        made = scores((name, clean, enhance(noisy, rate), rate) for name, clean, noisy, rate in scaled)
        lines.append(values(f"{level} dBFS", made))
    clean_in = scores((name, clean, enhance(clean, rate), rate) for name, (clean, rate), _ in pairs)
    lines.append(values("clean speech, as recorded", clean_in))
    lines += ["", "| input | level of the output against the input |", "|---|---:|"]
    silence = float(np.abs(enhance(np.zeros(5 * RATE, np.float32), RATE)).max())
    lines.append(f"| digital silence | {'silent' if silence == 0 else f'peak {20 * np.log10(silence):.0f} dBFS'} |")
    for name, wave in (("clean speech", pairs[0][1][0]), *music().items()):
        heard = enhance(wave, RATE)
        lines.append(f"| {name} | {20 * np.log10(rms(heard) / rms(wave)):+.1f} dB |")
    return "\n".join([*lines, ""])


def scores(pairs: Iterable[tuple[str, Wave, Wave, int]]) -> Sequence[Scored]:
    made = [Pair(name, (clean, rate), (enhanced, rate)) for name, clean, enhanced, rate in pairs]
    return evaluate_pairs(made, available_cpus())


def values(label: str, scored: Sequence[Scored]) -> str:
    summary = report.summarise(scored, METRICS)
    return table_row(label, [summary[metric].text(metric) for metric in METRICS])


def rms(wave: Wave) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def to_level(wave: Wave, dbfs: float) -> Wave:
    return (wave * (10 ** (dbfs / 20) / rms(wave))).astype(np.float32)


def music(seconds: float = 8.0) -> dict[str, Wave]:
    """Four chords of decaying harmonics, without and with a beat of noise bursts; RMS 0.1."""
    time = np.arange(round(seconds * RATE)) / RATE
    chords = ((220.0, 277.2, 329.6), (196.0, 246.9, 293.7), (174.6, 220.0, 261.6), (164.8, 207.7, 246.9))
    within = time % 2.0
    chord = np.zeros_like(time)
    for index, notes in enumerate(chords):
        playing = (time // 2.0) % 4 == index
        for hertz in notes:
            chord += playing * sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8)) * np.exp(-within)
    beat = np.random.default_rng(0).standard_normal(len(time)) * np.exp(-40 * (time % 0.5))
    parts = {"chords (made by rule)": chord, "chords and a beat": chord / rms(chord) + beat / rms(beat)}
    return {name: to_level(wave, -20.0) for name, wave in parts.items()}


if __name__ == "__main__":
    main()
