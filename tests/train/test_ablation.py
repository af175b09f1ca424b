"""Ablation files become checked recipes; runs are skipped, resumed and survived; the report counts what it should."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from semamba import config
from semamba.errors import SemambaError
from semamba.train import ablation_report, ablation_runs
from semamba.train.ablation import Plan, read_plan
from semamba.train.recipe import load_recipe

ROOT = Path(__file__).parents[2] / "recipes"
FILES = sorted([*(ROOT / "ablations").glob("*.yaml"), *(ROOT / "paper").glob("*.yaml")])

BASE = """
model: {kind: causal, channels: 8, sub_bands: 8, d_model: 8, blocks: 1, heads: 2, d_state: 4}
mix: {crop_seconds: 0.5}
train: {batch_size: 2, log_every: 1, validate_every: 0, workers: 0, device: cpu}
valid: {jobs: 1}
"""

# What a training leaves behind, without the training: scores by rule from the recipe and the seed.
FAKE = """
import json, pathlib, signal, sys, time, yaml
recipe = yaml.safe_load(open(sys.argv[2]))
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
train, rate = recipe["train"], float(recipe.get("optimiser", {}).get("lr", 1e-3))
with open(out / "calls", "a") as calls:
    print(" ".join(sys.argv[1:]), file=calls)
if rate > 1:
    print("started")
    sys.exit("error: loss or gradient was not finite")
if recipe.get("notes") == "slow":
    (out / "state.pt").touch()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (out / "ready").touch()
    time.sleep(60)
noisy = {"pesq": 1.5, "stoi": 0.8, "si_sdr": 5.0, "unscored": 0.0}
(out / "run.json").write_text(json.dumps({"validation": {"pairs": 4, "noisy": noisy}}))
steps = train["steps"] if train["steps"] != "auto" else 8
rows = []
for step in (steps // 2, steps):
    gain = step / steps * (1000 * rate + 0.1 * train["seed"])
    seconds = 10.0 * step + (5.0 if step == steps else 0.0)
    rows.append({"step": step, "kind": "train", "loss": 1 / step, "seconds": seconds})
    scores = {"pesq": 1.5 + gain, "stoi": None, "si_sdr": 5.0 + gain, "unscored": 4.0}
    rows.append({"step": step, "kind": "valid", **scores, "seconds": 5.0})
(out / "log.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(ablation_runs, "PROGRAM", (sys.executable, str(script)))


def write(folder: Path, **content: Any) -> Path:
    (folder / "base.yaml").write_text(BASE)
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump({"base": "base.yaml", "budget": {"steps": 4}, **content}, sort_keys=False))
    return path


def read(folder: Path, **content: Any) -> Plan:
    return read_plan(write(folder, **content))


# --- What a file may say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_ablation_of_the_repository_builds(path: Path) -> None:
    plan = read_plan(path)
    assert len(plan.variants) >= 3 and len(plan.seeds) >= 3
    assert len({json.dumps(variant.mapping["model"]) + str(variant.recipe) for variant in plan.variants}) == len(
        plan.variants
    )
    for variant in plan.variants:
        assert variant.cost.parameters > 10_000
        assert isinstance(variant.recipe.train.steps, int)


def test_a_grid_is_all_combinations_of_its_axes(tmp_path: Path) -> None:
    plan = read(
        tmp_path,
        seeds=[4, 5],
        common={"optimiser.warmup": 7},
        variants={"plain": None},
        grid={"model.d_model": [8, 16], "loss": {"all": {}, "no-phase": {"loss": {"phase": 0.0}}}},
    )
    names = [variant.name for variant in plan.variants]
    assert names == ["plain", "d_model=8-all", "d_model=8-no-phase", "d_model=16-all", "d_model=16-no-phase"]
    assert plan.baseline == "plain"
    last = plan.variants[-1].recipe
    assert (last.model["d_model"], last.model["channels"], last.loss.phase) == (16, 8, 0.0)
    assert all(v.recipe.optimiser.warmup == 7 and v.recipe.train.steps == 4 for v in plan.variants)
    jobs = [job.name for job in plan.jobs()]
    assert jobs[:2] == ["plain/seed-4", "d_model=8-all/seed-4"] and jobs[5] == "plain/seed-5" and len(jobs) == 10


def test_a_run_is_a_recipe_that_trains_alone(tmp_path: Path) -> None:
    job = list(read(tmp_path, variants={"a": {"optimiser.lr": 3e-3}}).jobs())[1]
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(job.mapping))
    recipe = load_recipe(path)
    assert (recipe.train.seed, recipe.train.steps, recipe.optimiser.lr) == (1, 4, 3e-3)
    assert recipe == config.parse(type(recipe), job.mapping)


def test_a_budget_of_audio_is_the_same_for_every_batch(tmp_path: Path) -> None:
    plan = read(
        tmp_path, budget={"audio": "1m"}, variants={"a": {}, "b": {"train.batch_size": 8, "mix.crop_seconds": 1.0}}
    )
    assert [variant.recipe.train.steps for variant in plan.variants] == [60, 8]


def test_overrides_reach_every_variant(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, variants={"a": {}, "b": {}}), ["train.batch_size=4"])
    assert {variant.recipe.train.batch_size for variant in plan.variants} == {4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "neither variants nor grid"),
        ({"variants": {"a": {}}, "budgets": 1}, "unknown key 'budgets'; did you mean 'budget'"),
        ({"variants": {"a": {"train.batchsize": 2}}}, "variant 'a': unknown key 'train.batchsize'"),
        ({"variants": {"a": {"model.chanels": 2}}}, "variant 'a': .*unknown key 'chanels'"),
        ({"variants": {"a": {"loss": {"phase": "much"}}}}, "variant 'a': loss.phase"),
        ({"variants": {"a": {"train.batch_size": 0}}}, "variant 'a': train.batch_size must be at least 1"),
        ({"variants": {"a/b": {}}}, "variant 'a/b': a name becomes a folder"),
        ({"variants": {"a": {"train..seed": 2}}}, "variants.a: 'train..seed' is not a key"),
        ({"variants": {"a": {}}, "baseline": "b"}, "baseline: no variant 'b'; there are a"),
        ({"variants": {"a": {}}, "budget": {}}, "budget: give one of steps, audio, time .got none"),
        ({"variants": {"a": {}}, "budget": {"steps": 3, "time": "1m"}}, "give one of .* .got steps, time"),
        ({"variants": {"a": {}}, "budget": {"audio": "long"}}, "budget.audio: .*'long'"),
        ({"variants": {"a": {}}, "budget": {"time": "0m"}}, "budget.time: must be more than nothing"),
        ({"variants": {"a": {}}, "seeds": [1, 1]}, "seeds: expected different numbers"),
        ({"variants": {"a": {}}, "base": "missing.yaml"}, "missing.yaml: no such file"),
        ({"grid": {"core": ["mamba", "lstm"]}}, "grid.core: a list of values needs a dotted key"),
        ({"grid": {"model.blocks": []}}, "grid.model.blocks: no values"),
        ({"variants": {"blocks=1": {}}, "grid": {"model.blocks": [1]}}, "'blocks=1' is the name of a variant already"),
        (
            {"variants": {"c": {"model": {"kind": "nothing"}}}},
            "variant 'c': model kind 'nothing': unknown",
        ),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(SemambaError, match=message) as caught:
        read(tmp_path, **content)
    assert "\n" not in str(caught.value) and ".yaml" in str(caught.value)


# --- Running ----------------------------------------------------------------------------------------------------------


def calls(out: Path, job: str) -> int:
    path = out / job / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_failed_run_is_reported_and_tried_again_while_finished_ones_are_skipped(
    tmp_path: Path, program: None
) -> None:
    plan = read(tmp_path, seeds=[0, 1], variants={"good": {}, "bad": {"optimiser.lr": 2.0}})
    said: list[str] = []
    for attempt in (1, 2):
        failures = ablation_runs.run_all(plan, Path("m.csv"), tmp_path / "out", 2, said.append)
        assert [failure.job.name for failure in failures if failure.job.seed == 0] == ["bad/seed-0"]
        assert len(failures) == 2 and "not finite (exit code 1" in failures[0].reason
        assert calls(tmp_path / "out", "good/seed-1") == 1
        assert calls(tmp_path / "out", "bad/seed-1") == attempt
    assert "2 of 4 runs are finished already" in said
    assert any("bad/seed-0: failed: loss or gradient" in text for text in said)
    results = ablation_report.collect(plan, tmp_path / "out")
    assert [result.job.name for result in results] == ["good/seed-0", "good/seed-1"]


def test_a_folder_of_other_settings_is_not_mixed_in(tmp_path: Path, program: None) -> None:
    out = tmp_path / "out"
    ablation_runs.run_all(read(tmp_path, seeds=[0], variants={"a": {}}), Path("m.csv"), out, 1, lambda text: None)
    with pytest.raises(SemambaError, match="recipe.yaml: this run was made with other settings"):
        ablation_runs.status(out, next(read(tmp_path, seeds=[0], budget={"steps": 6}, variants={"a": {}}).jobs()))


def test_a_time_budget_reaches_the_training(tmp_path: Path, program: None) -> None:
    plan = read(tmp_path, seeds=[0], budget={"time": "2m"}, variants={"a": {}})
    assert plan.variants[0].recipe.train.steps == "auto"
    ablation_runs.run_all(plan, Path("m.csv"), tmp_path / "out", 1, lambda text: None)
    assert "--time-budget 120s" in (tmp_path / "out/a/seed-0/calls").read_text()
    longer = read(tmp_path, seeds=[0], budget={"time": "3m"}, variants={"a": {}})
    assert ablation_runs.status(tmp_path / "out", next(plan.jobs())) == "finished"
    with pytest.raises(SemambaError, match=r"finished\.json: this run had another budget"):
        ablation_runs.status(tmp_path / "out", next(longer.jobs()))


def test_a_signal_stops_the_running_ones_and_starts_no_more(tmp_path: Path, program: None) -> None:
    plan = read(tmp_path, seeds=[0, 1], common={"notes": "slow"}, variants={"a": {}})
    first = tmp_path / "out/a/seed-0"

    def stop() -> None:
        deadline = time.monotonic() + 30
        while not (first / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ablation_runs.run_all(plan, Path("m.csv"), tmp_path / "out", 1, lambda text: None)
    thread.join()
    assert time.monotonic() - begun < 50
    assert ablation_runs.status(tmp_path / "out", next(plan.jobs())) == "interrupted"
    assert not (tmp_path / "out/a/seed-1/calls").exists()


# --- The report -------------------------------------------------------------------------------------------------------

MACHINE = {"gpu": None, "processor": "a processor", "processors": 2, "torch": "2", "load": 0.0}


def test_the_report_counts_by_seed(tmp_path: Path, program: None) -> None:
    plan = read(tmp_path, seeds=[0, 1, 2], variants={"slow": {}, "fast": {"optimiser.lr": 2e-3}})
    out = tmp_path / "out"
    assert ablation_runs.run_all(plan, Path("m.csv"), out, 3, lambda text: None) == []
    (out / "fast/seed-2/finished.json").unlink()
    document = ablation_report.document(plan, ablation_report.collect(plan, out), MACHINE, {"fast": 0.01})
    slow, fast = document["variants"]
    # 2.5, 2.6, 2.7: mean 2.6, t(2) * 0.1 / sqrt(3)
    assert slow["scores"]["pesq"] == pytest.approx({"mean": 2.6, "half_width": 0.24841, "count": 3}, abs=1e-4)
    assert fast["scores"]["pesq"]["count"] == 2 and fast["scores"]["stoi"] is None
    # seed by seed the gain is 1.0 for each, so the interval is none, whatever the seeds do
    assert fast["change"]["pesq"] == pytest.approx({"mean": 1.0, "half_width": 0.0, "count": 2}, abs=1e-6)
    assert slow["seconds"]["mean"] == pytest.approx(40.0)  # 45 s at the last line, 5 of them validation
    assert slow["audio_hours"]["mean"] == pytest.approx(4 * 2 * 0.5 / 3600)
    assert document["missing"] == ["fast/seed-2"]
    assert document["runs"][0]["loss"] == [[2 / 3600, 0.5], [4 / 3600, 0.25]]
    text = ablation_report.markdown(document)
    assert "| unprocessed |" in text and "| 2.600 ± 0.248 | n/a |" in text and "Not finished: fast/seed-2" in text
    assert "+1.000 ± 0.000" in text
    ablation_report.write(document, out)
    lines = (out / "report.csv").read_text().splitlines()
    assert lines[0] == "variant,seed,step,audio_hours,seconds,pesq,stoi,si_sdr" and len(lines) == 6
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(document))


def test_nothing_finished_and_a_broken_log_are_said(tmp_path: Path, program: None) -> None:
    plan = read(tmp_path, seeds=[0], variants={"a": {}})
    out = tmp_path / "out"
    with pytest.raises(SemambaError, match="no finished run"):
        ablation_report.collect(plan, out)
    ablation_runs.run_all(plan, Path("m.csv"), out, 1, lambda text: None)
    (out / "a/seed-0/log.jsonl").write_text("{broken")
    with pytest.raises(SemambaError, match="a/seed-0: its log cannot be read"):
        ablation_report.collect(plan, out)
