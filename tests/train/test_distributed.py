"""Several processes: the same run as one, stopped by the loss of any of them, resumed by any number."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from semamba.cli import app
from semamba.errors import SemambaError
from semamba.train.distributed import Ranks, choose_device
from semamba.train.loop import check_share
from tests.cli.test_train import arguments, corpus, steps
from tests.train import tiny

__all__ = ["corpus"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
# no dropout, since its draws differ between ranks, and no timing: labels are waited for
SAME = ["train.batch_size=4", "discriminator.dropout=0", "discriminator.wait=true"]
# nor stretches of digital silence: the phase of a bin at zero magnifies the rounding of another order of sums
SAME += ["mix.late_start=0", "mix.noise_only=0", "mix.gaps=0"]


def settings(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **more}


def start_ranks(count: int, command: list[str]) -> list[subprocess.Popen[str]]:
    """What torchrun does, without its own process."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "semamba", *command],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]


def logged(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_two_processes_of_torchrun_train_as_one(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "semamba"]
    command = arguments(corpus, tmp_path / "two", *settings(*SAME, "train.steps=4"))
    done = subprocess.run([*torchrun, *command], capture_output=True, text=True, env=environment(), timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all steps done at step 4") == 1, done.stdout
    result = CliRunner().invoke(app, arguments(corpus, tmp_path / "one", *settings(*SAME, "train.steps=4")))
    assert result.exit_code == 0, result.output
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert [record["kind"] for record in two] == ["train"] * 4 + ["valid"]
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for name in first.keys() - {"seconds", "kind"}:
            assert first[name] == pytest.approx(second[name], rel=1e-4, abs=1e-5), (first["step"], name)
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "two")]
    for kept in ("model", "ema"):
        for name, value in states[0][kept].items():
            torch.testing.assert_close(value, states[1][kept][name], rtol=1e-3, atol=1e-4, msg=name)
    pending = [state["discriminator"]["pending"] for state in states]
    assert [[wave.shape for wave in pair] for pair in pending[0]] == [
        [wave.shape for wave in pair] for pair in pending[1]
    ]


def test_the_loss_of_a_process_stops_the_others_and_the_run_resumes(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    out = tmp_path / "run"
    same = [*SAME, "loss.metric=0"]
    ranks = start_ranks(2, arguments(corpus, out, *settings(*same, "train.steps=100000")))
    try:
        deadline = time.monotonic() + 120
        while len(steps(out)) < 3 and all(r.poll() is None for r in ranks) and time.monotonic() < deadline:
            time.sleep(0.1)
        ranks[1].send_signal(signal.SIGKILL)
        output, _ = ranks[0].communicate(timeout=60)
    finally:
        for rank in ranks:
            rank.kill()
    assert ranks[0].returncode == 1, output
    errors = [line for line in output.splitlines() if not line.lstrip()[:1].isdigit()]
    assert len(errors) == 1 and "process 0 of 2 lost another one" in errors[0], output
    last = steps(out)[-1] + 2
    again = CliRunner().invoke(app, arguments(corpus, out, *settings(*same, f"train.steps={last}")))
    assert again.exit_code == 0 and "resumed" in again.output, again.output
    assert steps(out) == [*range(1, last + 1), last]


def test_alone_nothing_is_exchanged() -> None:
    ranks = Ranks(CPU)
    value = torch.ones(3)
    ranks.average([value])
    assert torch.equal(value, torch.ones(3)) and ranks.highest(2, -1) == [2, -1]
    assert ranks.all(True) and not ranks.all(False)
    assert ranks.gather(value) is value and torch.equal(ranks.own(value), value)
    ranks.leave()


def test_own_rows_are_a_share_of_the_gathered_ones() -> None:
    rows = torch.arange(8).reshape(4, 2)
    assert torch.equal(torch.cat([Ranks(CPU, rank, 2).own(rows) for rank in (0, 1)]), rows)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    check_share(tiny.recipe(), Ranks(CPU, 0, 2))
    with pytest.raises(SemambaError, match=r"train.batch_size \(2\) must be a multiple .*\(4\)"):
        check_share(tiny.recipe(train={"accumulate": 2}), Ranks(CPU, 0, 2))


def test_devices_that_are_not_there_are_named() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(SemambaError, match="not a device"):
        choose_device("nowhere")
