"""`semamba doctor`: what this installation can do, which kernel it runs and why, and a self-check."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

# Largest difference between two float32 evaluations of the same short scan; they differ in the order of sums only.
SCAN_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Finding:
    """One line of the report. A `note` is a limit to know of, `failed` is something that should work and does not."""

    name: str
    status: Literal["ok", "note", "failed"]
    text: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")] = False,
) -> None:
    """Check this installation; exit code 1 when something that should work does not."""
    findings = list(examine())
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    if any(finding.status == "failed" for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """All findings, in the order in which one thing builds on another."""
    examinations: list[Callable[[], Iterator[Finding]]] = [_system, _torch, _scan, _sound, _extras, _models, _enhance]
    for examination in examinations:
        name = examination.__name__.strip("_")
        try:
            yield from examination()
        except Exception as error:  # whatever is broken here is what this command is for
            yield Finding(name, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _system() -> Iterator[Finding]:
    import semamba

    yield Finding("semamba", "ok", f"{semamba.__version__} in {os.path.dirname(semamba.__file__)}")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    yield Finding("python", "ok", f"{platform.python_version()} on {machine}, {sys.executable}")


def _torch() -> Iterator[Finding]:
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Apple GPU (mps)")
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    yield Finding("device", "ok", ", ".join(devices) or "CPU; no GPU that this torch can use")


def _scan() -> Iterator[Finding]:
    import torch

    from semamba import ops
    from semamba.ops import cpu, reference

    if ops.backend_for(torch.zeros(1)) == "cpu":
        text = f"C++, {cpu.kernel_name()}: the best that this processor and this build share"
        yield Finding("kernel", "ok", text)
    else:
        text = f"the slow PyTorch scan: {cpu.why_unavailable()}; with a C++ compiler reinstall semamba"
        yield Finding("kernel", "note", text)

    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    u, delta, z = (noise(2, 37, 21) for _ in range(3))  # (B, L, D)
    b, c = noise(2, 37, 16), noise(2, 37, 16)  # (B, L, N)
    a, skip, bias = -torch.rand(21, 16, generator=generator), noise(21), noise(21)
    differences: list[float] = []
    for reverse in (False, True):
        results, expected = (
            scan(u, delta, a, b, c, skip, z=z, delta_bias=bias, delta_softplus=True, reverse=reverse)
            for scan in (ops.selective_scan, reference.selective_scan)
        )
        differences += [float((x - y).abs().max()) for x, y in zip(results, expected, strict=True)]
    agrees = all(difference <= SCAN_TOLERANCE for difference in differences)  # false for NaN
    yield Finding("scan", "ok" if agrees else "failed", f"differs from the reference by {max(differences):.1e} at most")


def _sound() -> Iterator[Finding]:
    import soundfile

    known = soundfile.available_formats()
    missing = [name for name in ("WAV", "FLAC", "OGG", "MP3", "AIFF") if name not in known]
    text = f"{soundfile.__libsndfile_version__} (libsndfile)"
    yield Finding("audio", "note" if missing else "ok", text + (f", without {', '.join(missing)}" if missing else ""))


def _extras() -> Iterator[Finding]:
    for name, packages in extras().items():
        missing = [package for package in packages if not package.startswith("extra ") and not _installed(package)]
        if missing:
            advice = f"pip install 'semamba[{name}]'"
            yield Finding(f"extra {name}", "note", f"{', '.join(missing)} not installed; to add: {advice}")
        else:
            yield Finding(f"extra {name}", "ok", ", ".join(packages))


def extras() -> dict[str, list[str]]:
    """Extra -> packages it needs, from the metadata of the installed package; `dev` is left out.

    Empty when semamba is imported from a folder that was never installed.
    """
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires("semamba") or []
    except PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in lines:
        package = re.match(r"([\w.-]+)(?:\[(\w+)\])?", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if package and extra and extra[1] != "dev":
            # An extra may include another one, which is listed by itself.
            found.setdefault(extra[1], []).append(f"extra {package[2]}" if package[2] else package[1])
    return found


def _installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _models() -> Iterator[Finding]:
    from semamba import checkpoint

    names = checkpoint.shipped()
    if checkpoint.DEFAULT_MODEL in names:
        text = ", ".join(f"{name} (default)" if name == checkpoint.DEFAULT_MODEL else name for name in names)
        yield Finding("weights", "ok", text)
    else:
        yield Finding("weights", "failed", f"'{checkpoint.DEFAULT_MODEL}' is not in {checkpoint.WEIGHTS}; reinstall")


def _enhance() -> Iterator[Finding]:
    import numpy as np

    import semamba

    rate = 16_000
    noise = np.random.default_rng(0).normal(0, 0.1, rate).astype(np.float32)
    enhancer = semamba.load(device="cpu")
    enhancer(noise, sample_rate=rate)  # the first call pays for setting up
    start = time.perf_counter()
    result = enhancer(noise, sample_rate=rate)
    took = time.perf_counter() - start
    if result.shape != noise.shape or not np.isfinite(result).all():
        yield Finding("enhance", "failed", "one second of noise came back with another length or with NaN")
    else:
        yield Finding("enhance", "ok", f"one second of noise took {took * 1000:.0f} ms")


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    colours = {"ok": "green", "note": "yellow", "failed": "red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for overflow in ("ignore", "ignore", "fold"):
        table.add_column(overflow=overflow, no_wrap=overflow == "ignore")  # type: ignore[arg-type]
    for finding in findings:
        status = f"[{colours[finding.status]}]{finding.status}[/]"
        table.add_row(status, finding.name, escape(finding.text))
    Console(highlight=False).print(table)
