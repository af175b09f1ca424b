"""What the finished runs of an ablation say: one document, as a table, as CSV and as JSON.

Scores are those of the averaged weights after the last step, not the best over all validations: picking the best of
several looks at the same pairs would favour whoever is looked at more often. Intervals are 95%, Student t over seeds.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semamba.checkpoint import write_atomic, write_json
from semamba.errors import SemambaError
from semamba.metrics.report import DECIMALS, LABELS, Estimate, estimate
from semamba.train.ablation import Job, Plan, Variant
from semamba.train.ablation_runs import status
from semamba.train.scores import SCORES
from semamba.train.state import RunFolder
from semamba.train.tracking import duration


@dataclass(frozen=True)
class Result:
    """One finished run.

    `curve` holds (step, scores) of each validation, `loss` (step, mean since the line before) of each line of the log;
    `seconds` is training without validation.
    """

    job: Job
    folder: Path
    step: int
    seconds: float
    curve: tuple[tuple[int, dict[str, float]], ...]
    loss: tuple[tuple[int, float], ...]
    noisy: dict[str, float]  # the same pairs, unprocessed
    pairs: int

    @property
    def scores(self) -> dict[str, float]:
        return self.curve[-1][1]

    @property
    def audio_hours(self) -> float:
        return _hours(self.job.variant, self.step)


def collect(plan: Plan, out: Path) -> list[Result]:
    """Every finished run of the plan. Raises SemambaError when there is none."""
    results = [_read(job, out / job.name) for job in plan.jobs() if status(out, job) == "finished"]
    if not results:
        raise SemambaError(f"{out}: no finished run to report on")
    return results


def document(
    plan: Plan, results: Sequence[Result], machine: Mapping[str, Any], speed: Mapping[str, float]
) -> dict[str, Any]:
    """The whole report, JSON-able; `speed` is the real-time factor of each variant that was timed."""
    by_variant = {v.name: [r for r in results if r.job.variant.name == v.name] for v in plan.variants}
    first = by_variant[plan.baseline]
    return {
        "name": plan.name,
        "notes": plan.notes,
        "score": plan.variants[0].recipe.valid.score,
        "baseline": plan.baseline,
        "seeds": list(plan.seeds),
        "budget_seconds": plan.seconds,
        "pairs": results[0].pairs,
        "unprocessed": {name: results[0].noisy[name] for name in SCORES if name in results[0].noisy},
        "variants": [_row(v, by_variant[v.name], first, speed.get(v.name)) for v in plan.variants],
        "runs": [_run(result) for result in results],
        "missing": [job.name for job in plan.jobs() if job.name not in {r.job.name for r in results}],
        "machine": dict(machine),
    }


def _row(variant: Variant, results: list[Result], baseline: list[Result], rtf: float | None) -> dict[str, Any]:
    before = {result.job.seed: result.scores for result in baseline}
    paired = [(before[r.job.seed], r.scores) for r in results if r.job.seed in before]
    return {
        "name": variant.name,
        "parameters": variant.cost.parameters,
        "causal": variant.cost.causal,
        "latency_ms": variant.cost.latency_ms,
        "paper_macs_per_second": variant.cost.paper_macs_per_second,
        "honest_macs_per_second": variant.cost.honest_macs_per_second,
        "rtf": rtf,
        "steps": _plain(estimate(r.step for r in results)),
        "audio_hours": _plain(estimate(r.audio_hours for r in results)),
        "seconds": _plain(estimate(r.seconds for r in results)),
        "scores": {name: _plain(estimate(_known(name, (r.scores for r in results)))) for name in SCORES},
        "change": {
            name: _plain(estimate(b[name] - a[name] for a, b in paired if name in a and name in b)) for name in SCORES
        },
    }


def _run(result: Result) -> dict[str, Any]:
    return {
        "variant": result.job.variant.name,
        "seed": result.job.seed,
        "step": result.step,
        "audio_hours": result.audio_hours,
        "seconds": result.seconds,
        "scores": result.scores,
        "curve": [
            {"step": step, "audio_hours": _hours(result.job.variant, step), **scores} for step, scores in result.curve
        ],
        "loss": [[_hours(result.job.variant, step), value] for step, value in result.loss],
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The report as tables; a mean carries half its interval wherever there is more than one seed."""
    names = [name for name in SCORES if name in content["unprocessed"]]
    lines = [f"# {content['name']}", "", *([content["notes"].strip(), ""] if content["notes"] else [])]
    head = ["variant", "parameters", "MMAC/s paper", "MMAC/s all", "latency", "hours heard", "training", "RTF"]
    cells = [["unprocessed", *[""] * 7, *(f"{content['unprocessed'][n]:.{DECIMALS.get(n, 3)}f}" for n in names)]]
    cells += [_cells(row, names) for row in content["variants"]]
    lines += _table([*head, *(LABELS[name] for name in names)], cells)
    others = [row for row in content["variants"] if row["name"] != content["baseline"]]
    if others:
        lines += ["", f"Change against `{content['baseline']}`, seed by seed:", ""]
        changes = [[row["name"], *(_text(row["change"][n], n, sign=True) for n in names)] for row in others]
        lines += _table(["variant", *(LABELS[name] for name in names)], changes)
    machine = content["machine"]
    place = machine["gpu"] or f"{machine['processor']}, {machine['processors']} processors"
    lines += [
        "",
        f"Seeds {', '.join(map(str, content['seeds']))}; ± is half a 95% interval over seeds (Student t); scores are "
        f"means over {content['pairs']} validation pairs after the last step. Training is the time of a run without "
        f"its validations. RTF: seconds of work for a second of audio, one thread, {place}, torch {machine['torch']}, "
        f"load {machine['load']} when the report was made.",
    ]
    if content["missing"]:
        lines += ["", f"Not finished: {', '.join(content['missing'])}."]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [
        row["name"],
        f"{row['parameters']:,}",
        f"{row['paper_macs_per_second'] / 1e6:,.0f}",
        f"{row['honest_macs_per_second'] / 1e6:,.0f}",
        "whole signal" if row["latency_ms"] is None else f"{row['latency_ms']:.0f} ms",
        "n/a" if row["audio_hours"] is None else f"{row['audio_hours']['mean']:.2f}",
        "n/a" if row["seconds"] is None else duration(row["seconds"]["mean"]),
        "n/a" if row["rtf"] is None else f"{row['rtf']:.3g}",
        *(_text(row["scores"][name], name) for name in names),
    ]


def write(content: Mapping[str, Any], out: Path) -> None:
    """report.md, report.csv (one line a run), report.json."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["variant", "seed", "step", "audio_hours", "seconds", *SCORES])
    for run in content["runs"]:
        row = [run[key] for key in ("variant", "seed", "step", "audio_hours", "seconds")]
        table.writerow([*row, *(run["scores"].get(name, "") for name in SCORES)])
    write_atomic(out / "report.csv", lambda path: path.write_text(text.getvalue(), encoding="utf-8"))
    write_atomic(out / "report.md", lambda path: path.write_text(markdown(content), encoding="utf-8"))
    write_json(out / "report.json", content)


def _read(job: Job, folder: Path) -> Result:
    run = RunFolder(folder)
    try:
        rows = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
        validation = json.loads(run.description.read_text(encoding="utf-8"))["validation"]
        checks = [row for row in rows if row["kind"] == "valid"]
        curve = tuple((row["step"], {k: row[k] for k in SCORES if row.get(k) is not None}) for row in checks)
        step = checks[-1]["step"]
        trained = [row for row in rows if row["kind"] == "train"]
        spent = 0.0  # at the last line of the log, and from there to the last step at the same pace
        if trained:
            last = trained[-1]
            spent = last["seconds"] - sum(row["seconds"] for row in checks if row["step"] < last["step"])
            spent *= step / last["step"]
        noisy = {k: v for k, v in validation["noisy"].items() if k in SCORES and math.isfinite(v)}
        loss = tuple((row["step"], row["loss"]) for row in trained if row.get("loss") is not None)
        return Result(job, folder, step, spent, curve, loss, noisy, validation["pairs"])
    except (OSError, ValueError, KeyError, IndexError) as error:
        reason = f"its log cannot be read ({error!r})"
        raise SemambaError(f"{folder}: {reason}; delete the folder to train it again") from None


def _known(name: str, scores: Iterable[Mapping[str, float]]) -> list[float]:
    return [row[name] for row in scores if name in row]


def _hours(variant: Variant, step: int) -> float:
    return step * variant.recipe.train.batch_size * variant.recipe.mix.crop_seconds / 3600


def _plain(value: Estimate) -> dict[str, Any] | None:
    """None where there is no value, `half_width` None where there is only one."""
    if not value.count:
        return None
    width = value.half_width if math.isfinite(value.half_width) else None
    return {"mean": value.mean, "half_width": width, "count": value.count}


def _text(value: Mapping[str, Any] | None, name: str, sign: bool = False) -> str:
    if value is None:
        return "n/a"
    width = math.nan if value["half_width"] is None else value["half_width"]
    return Estimate(value["mean"], width, value["count"]).text(name, sign)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
