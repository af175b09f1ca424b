"""Real-time factor and peak memory of shipped and causal models, and of advanced-mamba, on a ten-second clip.

    python benchmarks/models.py [MODEL ...] [--threads 1 2] [--seconds 10] [--json FILE] [--no-baseline]
                                [--isa avx2]

The baseline is the same model with every layer in PyTorch and the scan a loop; it is measured right before the model,
each in a process of its own. A baseline that takes longer than --limit-seconds is stopped, and its row has no ratio.
With --isa the kernels and the libraries of PyTorch keep to an older instruction set, as on a machine that has no other.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from semamba.profiling.machine import describe
from semamba.profiling.runner import Limits, measure
from semamba.profiling.spec import Measured, Spec
from semamba.profiling.subjects import default_names, weights_of
from semamba.profiling.survey import default_gigabytes

# What the processes that measure are told: our kernels, PyTorch's own, oneDNN's and MKL's.
AVX2 = {
    "SEMAMBA_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", help="[default: shipped, causal-*, advanced-mamba]")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--limit-seconds", type=float, default=300.0, help="of one pass")
    parser.add_argument("--no-baseline", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--isa", choices=("avx512", "avx2"), help="[default: the best that the processor has]")
    options = parser.parse_args()
    if options.isa == "avx2":
        os.environ.update(AVX2)
    place = describe(max(options.threads), "cpu")
    print(", ".join(f"{key} {value}" for key, value in place.items() if value is not None))
    limits, rows = Limits(options.limit_seconds, default_gigabytes()), []
    headings = f"{'threads':>8}{'RTF':>9}{'x real':>9}{'peak MB':>9}{'process':>9}{'baseline':>10}{'ratio':>8}"
    print(f"\n{'model':24}{headings}")
    for name in options.models or chosen():
        for threads in options.threads:
            spec = Spec(name, options.seconds, threads=threads)
            slow = None if options.no_baseline else measure(Spec(**{**asdict(spec), "backend": "reference"}), limits)
            fast = measure(spec, limits)
            print(line(name, threads, options.seconds, fast, slow), flush=True)
            outcomes = {"model": asdict(fast), "baseline": asdict(slow) if slow is not None else None}
            rows.append({"name": name, "threads": threads, "weights": weights_of(name), **outcomes})
    if options.json:
        options.json.write_text(json.dumps({"machine": place, "seconds": options.seconds, "rows": rows}, indent=2))


def chosen() -> list[str]:
    names = default_names()
    return [n for n in names if n.startswith("causal-") or n == "advanced-mamba" or weights_of(n) == "shipped"]


def line(name: str, threads: int, seconds: float, fast: object, slow: object) -> str:
    """Peak memory is that of weights and passes, "process" that of everything; the baseline is an RTF."""
    text = f"{name:24}{threads:8}"
    if not isinstance(fast, Measured):
        return f"{text}  {getattr(fast, 'reason', fast)}"
    text += f"{fast.median / seconds:9.4f}{seconds / fast.median:9.1f}"
    text += f"{fast.peak_bytes / 1e6:9.0f}{fast.process_bytes / 1e6:9.0f}"
    if isinstance(slow, Measured):
        return text + f"{slow.median / seconds:10.3f}{slow.median / fast.median:8.2f}"
    return text if slow is None else f"{text}  baseline {getattr(slow, 'reason', slow)}"


if __name__ == "__main__":
    main()
