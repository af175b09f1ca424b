"""The best weights of a run as a model to hand out: weights, config and a card that says where they come from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from semamba import checkpoint

UNITS = {"pesq": "PESQ-WB", "stoi": "STOI", "si_sdr": "SI-SDR (dB)"}


def export(run: str | Path, destination: str | Path, half: bool = True) -> None:
    """Write the best averaged weights of a run folder, float16 by default, with config.json and card.md."""
    best = Path(run) / "best"
    described = checkpoint.describe(best)
    model = checkpoint.load(best)
    meta, folder = described["meta"], Path(destination)
    checkpoint.save(folder, model, meta, half=half)
    parameters = sum(p.numel() for p in model.parameters())
    text = card(folder.name, described["model"], meta, parameters, validations(Path(run) / "log.jsonl"))
    checkpoint.write_atomic(folder / "card.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))


def validations(log: Path) -> list[dict[str, Any]]:
    """The rows of a run's log that hold scores, in the order of the steps."""
    rows = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["kind"] == "valid"]


def card(name: str, model: dict[str, Any], meta: dict[str, Any], parameters: int, curve: list[dict[str, Any]]) -> str:
    """Markdown model card from what the run recorded; `curve` is its validations."""
    recipe, scores, noisy = meta["recipe"], meta["scores"], meta["validation"]["noisy"]
    hours_per_step = recipe["train"]["batch_size"] * recipe["mix"]["crop_seconds"] / 3600
    lines = [
        f"# {name}",
        "",
        f"Single-channel speech enhancement at 16 kHz, model kind `{model['kind']}`, {parameters:,} parameters; "
        f"averaged weights after {meta['step']:,} steps of {recipe['train']['batch_size']} mixtures of "
        f"{recipe['mix']['crop_seconds']:g} s.",
        "",
        "## Scores on validation",
        "",
        f"Mean over the {meta['validation']['pairs']} pairs of split `{recipe['valid']['split']}`. The weights were "
        f"chosen by {UNITS[recipe['valid']['score']]} on these pairs, so read the figures as slightly optimistic.",
        "",
        "| measure | noisy | enhanced |",
        "|---|---|---|",
        *(f"| {unit} | {_number(noisy[key])} | {_number(scores[key])} |" for key, unit in UNITS.items()),
        "",
        "## Learning curve",
        "",
        "Averaged weights on the validation pairs, while the run went on.",
        "",
        f"| step | hours of mixtures | {' | '.join(UNITS.values())} |",
        "|---:|---:|---:|---:|---:|",
        *(
            f"| {row['step']:,} | {row['step'] * hours_per_step:.1f} | "
            f"{' | '.join(_number(row[key]) for key in UNITS)} |"
            for row in curve
        ),
        "",
        *(["## Notes", "", recipe["notes"].strip(), ""] if recipe.get("notes") else []),
        "## Training data",
        "",
        "Mixed on the fly. None of it is part of this package; the licences below are those of the recordings.",
        "",
        "| kind | source | licence | files | minutes |",
        "|---|---|---|---|---|",
        *(f"| {s['kind']} | {s['source']} | {s['licence']} | {s['files']} | {s['minutes']} |" for s in meta["sources"]),
        "",
        "## Recipe",
        "",
        "```json",
        json.dumps(recipe, indent=2),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    """A score that is defined for no pair is null in logs and NaN in memory."""
    return "not defined" if value is None or math.isnan(value) else f"{value:.3f}"
