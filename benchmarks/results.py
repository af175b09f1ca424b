"""Measure models on named sets of real recordings and write the tables of docs/results.md.

    python benchmarks/results.py [--model NAME ...] [--shared ../shared]

The folder given by --shared holds `data/<set>/{clean,noisy}` and `reference/peers.json`, the mean scores of public
peers on the same files. Only the text between the two markers of the document is replaced; the rest is yours.
With --limit N the tables are printed, not written, since they are no longer those of the whole sets.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from document import table_row, write_section

from semamba import checkpoint
from semamba.errors import SemambaError
from semamba.metrics import report
from semamba.metrics.evaluate import METRICS, Pair, Preparation, Scored, evaluate_pairs
from semamba.metrics.pairs import find_pairs
from semamba.metrics.pool import available_cpus
from semamba.profiling.machine import describe
from semamba.profiling.runner import Limits, measure
from semamba.profiling.spec import Measured, Spec

ROOT = Path(__file__).resolve().parents[1]
SETS = {
    "valid/paired": "VoiceBank-DEMAND training-set pairs of two speakers kept out of training, not the published test "
    "set. They chose the checkpoint and the weight of the perceptual term, so their figures are slightly optimistic",
    "test/dns_synth_upf": "DNS-Challenge style mixes",
    "test/dns2020_test": "part of the DNS-2020 no-reverb test set",
}


@dataclass(frozen=True)
class Rows:
    """What was measured on one set: label -> results by file, noisy input first."""

    name: str
    seconds: float
    systems: dict[str, Sequence[Scored]]


def main() -> None:
    options = parse_arguments()
    peers = json.loads((options.shared / "reference/peers.json").read_text())
    models = options.model or [checkpoint.DEFAULT_MODEL]
    try:
        measured = [measure_set(options.shared / "data", name, models, options) for name in options.set]
    except SemambaError as error:
        sys.exit(f"error: {error}")
    text = "\n".join(
        [introduction(models), cost_table(models, peers), *(set_section(rows, models, peers) for rows in measured)]
    )
    if options.json:
        content = {rows.name: {label: report.document(s) for label, s in rows.systems.items()} for rows in measured}
        report.write_json(options.json, content)
    if options.limit:
        print(text)
    else:
        write_section(options.out, "results", "results", f"\n{text}\n")
        for model in set(models) & set(checkpoint.shipped()):
            write_section(
                checkpoint.locate(model) / "card.md", "results", "results", card_section(model, measured, peers)
            )
        print(f"{options.out}: tables of {', '.join(models)} on {len(measured)} sets written")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="name or folder; may be repeated [default: the shipped one]")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder of data and reference")
    parser.add_argument("--set", action="append", choices=SETS, help="only this set; may be repeated")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results.md")
    parser.add_argument("--json", type=Path, help="write every score here too")
    parser.add_argument("--limit", type=int, help="only the first N pairs of each set, printed")
    parser.add_argument("--jobs", type=int, default=available_cpus(), help="processes that score")
    options = parser.parse_args()
    options.set = options.set or list(SETS)
    if not (options.shared / "reference/peers.json").is_file():
        parser.error(f"{options.shared}: no reference/peers.json here; name the folder with --shared")
    return options


def measure_set(data: Path, name: str, models: Sequence[str], options: argparse.Namespace) -> Rows:
    """Noisy input, each model, and each model followed by contrast stretching."""
    import semamba
    from semamba import audio

    files, unpaired = find_pairs(data / name / "clean", data / name / "noisy")
    if unpaired:
        raise SemambaError(f"{data / name}: files without partner: {', '.join(unpaired)}")
    files = files[: options.limit]
    seconds = sum(audio.probe(noisy).seconds or 0.0 for _, _, noisy in files)
    systems: dict[str, Sequence[Scored]] = {"noisy input": evaluate_pairs([Pair(*f) for f in files], options.jobs)}
    for model in models:
        print(f"{name}: {model} on {len(files)} files", file=sys.stderr)
        enhancer = semamba.load(model)
        enhanced = []
        for file, clean, noisy in files:
            wave, rate = audio.read(noisy)
            enhanced.append(Pair(file, clean, (enhancer(wave, rate), rate)))
        systems[model] = evaluate_pairs(enhanced, options.jobs)
        systems[f"{model} + PCS"] = evaluate_pairs(enhanced, options.jobs, Preparation(pcs=True))
    return Rows(name, seconds, systems)


def introduction(models: Sequence[str]) -> str:
    command = " ".join(f"--model {model}" for model in models)
    return f"""\
All tables of this section are made by one command, where `SHARED` is a folder with the sets and the peers' scores:

```
python benchmarks/results.py {command} --shared SHARED
```

Measures: wide-band PESQ (`pesq`), STOI and ESTOI (`pystoi`), CSIG, CBAK, COVL and segmental SNR (equal to the script
that CMGAN, MP-SENet and SEMamba publish with), SI-SDR. Values are means over files ± half of the 95% interval
(Student t over files). "Change" is taken file by file against the noisy input, so its interval is the one to judge
an improvement by. Rows marked † are public peers: means on the same files with the same measures, no interval recorded.
"""


def cost_table(models: Sequence[str], peers: dict[str, Any]) -> str:
    columns = ("parameters", "MAC per second of audio", "algorithmic latency", "real-time factor, one thread")
    lines = [table_row("system", columns), "|---|---:|---:|---:|---:|"]
    for model in models:
        cost = model_cost(model)
        latency = f"{cost.latency_ms:.0f} ms" if cost.causal else "whole signal"
        macs, factor = f"{cost.honest_macs_per_second / 1e6:,.0f} M", real_time_factor(model)
        lines.append(table_row(f"**{model}**", [f"{cost.parameters:,}", macs, latency, factor]))
    for peer, cost in peers["cost"].items():
        macs = f"{cost['macs_per_s'] / 1e6:,.0f} M" if "macs_per_s" in cost else "not recorded"
        lines.append(table_row(f"{peer} †", [f"{cost['params']:,.0f}", macs, f"{cost['latency_ms']:.0f} ms", ""]))
    machine = describe(1, "cpu")
    where = f"Real-time factors: {machine['processor']}, {machine['processors']} processors, load {machine['load']}."
    return "\n".join([*lines, "", where, ""])


def real_time_factor(model: str, seconds: float = 10.0) -> str:
    """Seconds of work for a second of audio on one thread, measured as `semamba profile` does."""
    outcome = measure(Spec(model, seconds, threads=1), Limits())
    return f"{outcome.median / seconds:.4f}" if isinstance(outcome, Measured) else outcome.reason


def model_cost(model: str) -> Any:
    from semamba.models import config_from_dict
    from semamba.models.complexity import profile

    return profile(config_from_dict(checkpoint.describe(model)["model"]))


def set_section(rows: Rows, models: Sequence[str], peers: dict[str, Any]) -> str:
    """Heading, command and table of one set."""
    noisy = rows.systems["noisy input"]
    summaries = {label: report.summarise(scored, METRICS) for label, scored in rows.systems.items()}
    lines = [f"### {rows.name}", "", f"{len(noisy)} pairs, {rows.seconds / 60:.1f} min: {SETS[rows.name]}.", "", "```"]
    folder = f"SHARED/data/{rows.name}"
    for model in models:
        lines.append(
            f"semamba evaluate --clean {folder}/clean --noisy {folder}/noisy --model {model} --with-noisy [--pcs]"
        )
    lines += ["```", "", "| system | " + " | ".join(report.LABELS[m] for m in METRICS) + " |"]
    lines.append("|---|" + "---:|" * len(METRICS))
    for label, summary in summaries.items():
        shown = f"**{label}**" if label in models else label
        lines.append(table_row(shown, [summary[metric].text(metric) for metric in METRICS]))
        if label in models:
            change = report.changes(noisy, rows.systems[label])
            lines.append(table_row("change", [change[metric].text(metric, sign=True) for metric in METRICS]))
    lines += peer_rows(peers, rows.name)
    problems = [f"- {label}: {line}" for label, s in rows.systems.items() for line in report.problem_lines(s)]
    if problems:
        lines += ["", "Left out of the means:", *problems]
    return "\n".join([*lines, ""])


def card_section(model: str, measured: Sequence[Rows], peers: dict[str, Any]) -> str:
    """What a model card says: scores on every set, beside the peers'."""
    command = f"`python benchmarks/results.py --model {model} --shared SHARED`"
    lines = ["", "## Scores on recorded sets", "", f"{command}. The test sets chose no weights.", ""]
    lines.append(table_row("set | system", [report.LABELS[metric] for metric in METRICS]))
    lines.append("|---|---|" + "---:|" * len(METRICS))
    for rows in measured:
        for label in ("noisy input", model):
            summary = report.summarise(rows.systems[label], METRICS)
            lines.append(table_row(f"{rows.name} | {label}", [summary[metric].text(metric) for metric in METRICS]))
        lines += peer_rows(peers, rows.name, f"{rows.name} | ")
    return "\n".join([*lines, "", "† public peers: means on the same files with the same measures.", ""])


def peer_rows(peers: dict[str, Any], name: str, before: str = "") -> list[str]:
    """The rows of a set that were measured elsewhere."""
    rows = []
    for peer, scores in peers["scores"].get(name, {}).items():
        if peer != "noisy input":
            values = [f"{scores[metric]:.{report.DECIMALS.get(metric, 3)}f}" for metric in METRICS]
            rows.append(table_row(f"{before}{peer} †", values))
    return rows


if __name__ == "__main__":
    main()
