"""The table that `semamba evaluate` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semamba.metrics.evaluate import Scored
    from semamba.metrics.wer import Recognition


def show(columns: Mapping[str, Sequence[Scored]], words: Mapping[str, Recognition], title: str) -> None:
    """Means with intervals on stdout, what is missing on stderr; "change" is the last column against the noisy one."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from semamba.metrics import report

    last = list(columns)[-1]
    change = report.changes(columns["noisy"], columns[last]) if "noisy" in columns and last != "noisy" else None
    caption = f"mean over n files ± half of the interval ({report.INTERVAL})"
    if words:
        caption += "; word errors: all errors by all words, bootstrap interval over files"
    table = Table(title=escape(title), caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("measure", no_wrap=True)
    for key in [*columns, *(["change"] if change is not None else [])]:
        table.add_column(escape(key), justify="right", no_wrap=True)
        table.add_column("n", justify="right", no_wrap=True)
    for metric in report.measured(*columns.values()):
        cells = [escape(report.LABELS[metric])]
        for scored in columns.values():
            found = report.summarise(scored, [metric])[metric]
            cells += [found.text(metric), str(found.count)] if found.count else ["", ""]
        if change is not None and metric in change:
            cells += [change[metric].text(metric, sign=True), str(change[metric].count)]
        table.add_row(*cells)
    for label, unit in (("WER", "words"), ("CER", "characters")) if words else ():
        cells = [label]
        for key in columns:
            cells += [rate_text(words[key], unit), str(len(words[key].files))]
        if change is not None:
            cells += [_relative(words["noisy"], words[last], unit), ""]
        table.add_row(*cells)
    if words:
        table.add_row("sub/del/ins", *(cell for key in columns for cell in (_operations(words[key]), "")))
    Console().print(table)
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for key, scored in columns.items():
        lines = report.problem_lines(scored)
        if lines:
            errors.print(f"[red]{len(lines)} of {len(scored)} {escape(key)} files left out, in part or whole:[/red]")
        unheard = words[key].left_out.items() if key in words else ()
        named = {name for result in scored if (name := result.name) and result.problems}
        lines += [f"{name} (words): {reason}" for name, reason in unheard if name not in named]
        for line in lines:
            errors.print(f"  {escape(line)}")


def rate_text(found: Recognition, unit: str) -> str:
    """`25.1% (20.3 to 30.0)`."""
    if not found.files:
        return "n/a"
    interval = found.interval(unit)
    shown = f"{100 * found.corpus(unit).rate:.1f}%"
    return shown if interval is None else f"{shown} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def _relative(before: Recognition, after: Recognition, unit: str) -> str:
    """Change of the rate in per cent of the rate before, over the files that both heard."""
    from semamba.metrics.wer import Recognition

    both = before.files.keys() & after.files.keys()
    first, second = (Recognition({name: found.files[name] for name in both}) for found in (before, after))
    if not both or not first.corpus(unit).total:
        return "n/a"
    return f"{100 * (second.corpus(unit).rate / first.corpus(unit).rate - 1):+.0f}% relative"


def _operations(found: Recognition) -> str:
    total = found.corpus()
    return f"{total.substitutions}/{total.deletions}/{total.insertions} of {total.length}" if found.files else ""
