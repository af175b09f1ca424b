"""The run: resume after any kill, stop on a signal or at the budget, keep best and last, survive a full disk."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from semamba import checkpoint
from semamba.data.dataset import Pair
from semamba.errors import SemambaError
from semamba.train import loop, state
from semamba.train import scores as scoring
from semamba.train.loop import Run
from semamba.train.ship import export
from tests.train import tiny

SAVE_EVERY_STEP = {"train": {"checkpoint_minutes": 0}}


class Killed(Exception):
    """Stands for a process that is gone: nothing after it runs."""


def killed_at(step: int) -> loop.Batches:
    def from_step(first: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(tiny.batches(first), first):
            if number == step:
                raise Killed
            yield batch

    return from_step


def signalled_at(step: int, number: int) -> loop.Batches:
    def from_step(first: int) -> Iterator[tuple[Tensor, Tensor]]:
        for count, batch in enumerate(tiny.batches(first), first):
            if count == step:
                os.kill(os.getpid(), number)
            yield batch

    return from_step


def states(run: Run) -> dict[str, Tensor]:
    t = run.training
    return {**t.model.state_dict(), **{f"ema.{k}": v for k, v in t.ema.model.state_dict().items()}}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    run = Run(tiny.recipe(), tmp_path_factory.mktemp("runs") / "whole", tiny.batches, [])
    assert run.train().step == 6
    return states(run)


@pytest.mark.parametrize("step", [1, 4])
def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, uninterrupted: dict[str, Tensor], step: int) -> None:
    with pytest.raises(Killed):
        Run(tiny.recipe(**SAVE_EVERY_STEP), tmp_path, killed_at(step), []).train()
    resumed = Run(tiny.recipe(), tmp_path, tiny.batches, [])
    assert resumed.training.step == step
    resumed.train()
    for name, value in states(resumed).items():
        assert torch.equal(value, uninterrupted[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_steps_stops_and_saves(
    tmp_path: Path, uninterrupted: dict[str, Tensor], number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    outcome = Run(tiny.recipe(), tmp_path, signalled_at(2, number), []).train()
    assert (outcome.step, outcome.stopped) == (2, int(number))
    assert signal.getsignal(number) is before
    resumed = Run(tiny.recipe(), tmp_path, tiny.batches, [])
    resumed.train()
    assert all(torch.equal(value, uninterrupted[name]) for name, value in states(resumed).items())


def test_budget_ends_the_run_and_drives_the_schedule(tmp_path: Path) -> None:
    recipe = tiny.recipe(train={"steps": "auto"})
    with pytest.raises(SemambaError, match="--time-budget"):
        Run(recipe, tmp_path / "none", tiny.batches, [])
    run = Run(recipe, tmp_path / "run", tiny.batches, [], budget=1.0)
    outcome = run.train()
    assert outcome.stopped == "budget" and outcome.step > 1 and 1.0 <= run.training.elapsed < 5
    rate = run.training.optimiser.param_groups[0]["lr"]
    assert rate < 0.7 * recipe.optimiser.lr
    again = Run(recipe, tmp_path / "run", tiny.batches, [], budget=1.0).train()
    assert again.step == outcome.step


def test_never_resume_refuses_an_existing_run(tmp_path: Path) -> None:
    Run(tiny.recipe(train={"steps": 1}), tmp_path, tiny.batches, []).train()
    with pytest.raises(SemambaError, match="a run exists here"):
        Run(tiny.recipe(), tmp_path, tiny.batches, [], resume="never")
    with pytest.raises(SemambaError, match="no such file"):
        Run(tiny.recipe(), tmp_path, tiny.batches, [], resume=tmp_path / "nothing.pt")
    other = tiny.recipe(model={"channels": 16})
    with pytest.raises(SemambaError, match="does not fit"):
        Run(other, tmp_path, tiny.batches, [])
    (tmp_path / "state.pt").write_bytes(b"broken")
    with pytest.raises(SemambaError, match="not a readable"):
        Run(tiny.recipe(), tmp_path, tiny.batches, [])


def test_a_full_disk_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = state.save_state, []

    def sometimes_full(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) in (2, 3):
            raise OSError("No space left on device")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "save_state", sometimes_full)
    assert Run(tiny.recipe(**SAVE_EVERY_STEP), tmp_path, tiny.batches, []).train().step == 6
    assert capsys.readouterr().out.count("No space left") == 2

    def always_full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(state, "save_state", always_full)
    longer = tiny.recipe(train={"steps": 7})
    with pytest.raises(SemambaError, match="the last good one is still there"):
        Run(longer, tmp_path, tiny.batches, []).train()
    assert Run(longer, tmp_path, tiny.batches, []).training.step == 6


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    real, calls = loop.train_step, []

    def hungry(*arguments: object) -> dict[str, Tensor]:
        calls.append(arguments)
        if len(calls) > 2:
            raise error
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", hungry)
    with pytest.raises(SemambaError, match=r"out of memory at step 2 on cpu, with 2 pairs.*raise train\.accumulate"):
        Run(tiny.recipe(**SAVE_EVERY_STEP), tmp_path, tiny.batches, []).train()
    assert Run(tiny.recipe(), tmp_path, tiny.batches, []).training.step == 2


def test_init_starts_from_given_weights(tmp_path: Path) -> None:
    Run(tiny.recipe(), tmp_path / "first", tiny.batches, []).train()
    second = Run(tiny.recipe(init=str(tmp_path / "first" / "last")), tmp_path / "second", tiny.batches, [])
    given = checkpoint.load(tmp_path / "first" / "last").state_dict()
    assert second.training.step == 0
    assert all(torch.equal(value, given[name]) for name, value in second.training.model.state_dict().items())


def test_validation_keeps_the_best_and_export_writes_a_card(tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    source = {"kind": "speech", "source": "tones", "licence": "CC0-1.0", "files": 1, "minutes": 0.1}
    recipe = tiny.recipe(train={"steps": 2}, valid={"jobs": 1}, notes="A word for the reader.")
    run = Run(recipe, tmp_path / "run", tiny.batches, [tiny.speech_like()], sources=[source])
    outcome = run.train()
    assert outcome.best == outcome.scores["pesq"] > 1
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [r["kind"] for r in records] == ["train", "valid"] and records[1]["unscored"] == 0
    export(tmp_path / "run", tmp_path / "weights" / "tone")
    card = (tmp_path / "weights" / "tone" / "card.md").read_text()
    assert "# tone" in card and "CC0-1.0" in card and f"{outcome.best:.3f}" in card and str(tmp_path) not in card
    assert "A word for the reader." in card
    checkpoint.load(tmp_path / "weights" / "tone")


def test_given_weights_stay_the_best_until_others_are_better(tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    Run(tiny.recipe(), tmp_path / "first", tiny.batches, []).train()
    given = tmp_path / "first" / "last"
    worse = tiny.recipe(train={"steps": 2}, valid={"jobs": 1}, optimiser={"lr": 10.0, "warmup": 0}, init=str(given))
    outcome = Run(worse, tmp_path / "second", tiny.batches, [tiny.speech_like()]).train()
    assert outcome.scores["pesq"] < outcome.best
    kept = checkpoint.load(tmp_path / "second" / "best").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in checkpoint.load(given).state_dict().items())
    export(tmp_path / "second", tmp_path / "kept")
    card = (tmp_path / "kept" / "card.md").read_text()
    assert f"| 0 | 0.0 | {outcome.best:.3f} |" in card and f"| 2 | 0.0 | {outcome.scores['pesq']:.3f} |" in card


def test_a_score_that_no_pair_has_ends_the_run_at_once(tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    silent = Pair("silence", np.zeros(16000, np.float32), np.zeros(16000, np.float32))
    with pytest.raises(SemambaError, match=r"valid\.score=pesq is defined for none of the 1 validation pairs"):
        Run(tiny.recipe(valid={"jobs": 1}), tmp_path, tiny.batches, [silent]).train()


def test_a_scorer_that_dies_costs_its_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pesq")
    monkeypatch.setattr(scoring, "score_pair", _die_of_silence)
    tone = np.sin(np.arange(16000) / 9).astype(np.float32)
    means = scoring.score_all([(tone, tone), (tone, 0 * tone)], 1)
    assert means["stoi"] == 0.5 and means["unscored"] == 2 + 3


def _die_of_silence(signals: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    if not signals[1].any():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"stoi": 0.5}


def test_a_card_says_which_scores_are_not_defined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"pesq": math.nan, "stoi": math.nan, "si_sdr": 3.0, "unscored": 2.0}
    monkeypatch.setattr(loop, "score_all", lambda signals, jobs: scores)
    monkeypatch.setattr(loop, "validate", lambda *arguments: scores)
    recipe = tiny.recipe(valid={"jobs": 1, "score": "si_sdr"})
    Run(recipe, tmp_path / "run", tiny.batches, [tiny.speech_like()]).train()
    export(tmp_path / "run", tmp_path / "out")
    card = (tmp_path / "out" / "card.md").read_text()
    assert "| PESQ-WB | not defined | not defined |" in card and "| SI-SDR (dB) | 3.000 | 3.000 |" in card


def test_a_finished_run_that_starts_again_keeps_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"pesq": 2.0, "stoi": 0.9, "si_sdr": 3.0, "unscored": 0.0}
    monkeypatch.setattr(loop, "score_all", lambda signals, jobs: scores)
    monkeypatch.setattr(loop, "validate", lambda *arguments: scores)
    for _ in range(2):
        Run(tiny.recipe(valid={"jobs": 1}), tmp_path, tiny.batches, [tiny.speech_like()]).train()
        assert json.loads((tmp_path / "run.json").read_text())["validation"] == {"pairs": 1, "noisy": scores}
        assert checkpoint.describe(tmp_path / "last")["meta"]["validation"]["pairs"] == 1
    Run(tiny.recipe(valid={"jobs": 1}), tmp_path, tiny.batches, [tiny.speech_like()] * 2)  # other pairs
    assert "validation" not in json.loads((tmp_path / "run.json").read_text())


def test_the_state_of_another_run_brings_no_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"pesq": 2.0, "stoi": 0.9, "si_sdr": 3.0, "unscored": 0.0}
    monkeypatch.setattr(loop, "score_all", lambda signals, jobs: scores)
    monkeypatch.setattr(loop, "validate", lambda *arguments: {**scores, "pesq": scores["pesq"] - 0.5})
    pairs = [tiny.speech_like()]
    Run(tiny.recipe(valid={"jobs": 1}), tmp_path / "first", tiny.batches, pairs).train()
    longer = tiny.recipe(valid={"jobs": 1}, train={"steps": 8})
    second = Run(longer, tmp_path / "second", tiny.batches, pairs, resume=tmp_path / "first" / "state.pt")
    assert second.training.step == 6 and second.train().best == 1.5
    assert (tmp_path / "second" / "best" / "config.json").exists()


def test_a_resumed_run_has_the_settings_of_its_recipe(tmp_path: Path) -> None:
    Run(tiny.recipe(), tmp_path, tiny.batches, []).train()
    changed = tiny.recipe(optimiser={"weight_decay": 0.5, "betas": [0.5, 0.6]})
    (group,) = Run(changed, tmp_path, tiny.batches, []).training.optimiser.param_groups
    assert group["weight_decay"] == 0.5 and tuple(group["betas"]) == (0.5, 0.6)


def test_slices_follow_the_schedule_of_the_whole(tmp_path: Path) -> None:
    recipe = tiny.recipe(train={"log_every": 1})
    Run(recipe, tmp_path / "whole", tiny.batches, []).train()
    parts = []
    while not parts or parts[-1].stopped == "slice":
        part = 1e-6 if len(parts) < 2 else 60.0
        parts.append(Run(recipe, tmp_path / "parts", tiny.batches, [], slice_seconds=part).train())
        assert (tmp_path / "parts" / "state.pt").exists() and len(parts) < 9
    assert parts[-1].stopped == "done"

    def rates(name: str) -> list[float]:
        lines = map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())
        return [line["lr"] for line in lines if "lr" in line]

    assert rates("parts") == rates("whole")


def test_a_slice_counts_from_where_the_part_began(tmp_path: Path) -> None:
    recipe = tiny.recipe(train={"steps": "auto"})
    steps = []
    for _ in range(2):
        run = Run(recipe, tmp_path / "run", tiny.batches, [], budget=60.0, slice_seconds=0.3)
        outcome = run.train()
        steps.append(outcome.step)
        assert outcome.stopped == "slice" and run.progress() == run.training.elapsed / 60
    assert 0 < steps[0] < steps[1] and run.training.elapsed >= 0.6


def test_the_average_is_validated_and_by_minutes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, seen = {"pesq": 2.0, "stoi": 0.9, "si_sdr": 3.0, "unscored": 0.0}, []
    monkeypatch.setattr(loop, "score_all", lambda signals, jobs: scores)
    monkeypatch.setattr(loop, "validate", lambda model, *_: seen.append(model) or scores)
    run = Run(tiny.recipe(train={"steps": 3, "validate_minutes": 1e-9}), tmp_path, tiny.batches, [tiny.speech_like()])
    run.train()
    assert seen and all(model is run.training.ema.model for model in seen)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "valid"] == [1, 2, 3]
