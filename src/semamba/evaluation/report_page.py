"""The report: one HTML file that opens anywhere, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semamba.evaluation.page_bundle import PAGE, WEB, page
from semamba.evaluation.report_data import Record, build
from semamba.files import write_atomic

STYLES = (WEB / "theme.css", PAGE / "report.css")
SCRIPTS = (
    *(WEB / "engine/fft.js", WEB / "spectrogram.js"),
    *(PAGE / name for name in ("dom.js", "stats.js", "plots.js", "listen.js", "report.js")),
)


def write_report(
    path: Path, records: Sequence[Record], title: str, clips: int, against: Sequence[Record] = ()
) -> dict[str, Any]:
    """Write the report and return its data; `clips` is how many files can be listened to."""
    data = build(records, title, clips, against)
    text = page(PAGE / "report.html", STYLES, SCRIPTS, title, data)
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return data
