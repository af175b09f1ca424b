"""The best weights of a run as a model to hand out: weights, config and a card that says where they come from."""

from __future__ import annotations

import json
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
    text = card(folder.name, described["model"], meta, sum(p.numel() for p in model.parameters()))
    checkpoint.write_atomic(folder / "card.md", lambda temporary: temporary.write_text(text, encoding="utf-8"))


def card(name: str, model: dict[str, Any], meta: dict[str, Any], parameters: int) -> str:
    """Markdown model card from what the run recorded."""
    recipe, scores = meta["recipe"], meta["scores"]
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
        *(f"| {unit} | {meta['validation']['noisy'][key]:.3f} | {scores[key]:.3f} |" for key, unit in UNITS.items()),
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
