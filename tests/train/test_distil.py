"""Distillation: the student comes closer to the teacher, which never changes and may have another spectrum."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semamba import checkpoint, config, models
from semamba.errors import SemambaError
from semamba.train.distil import Teacher
from semamba.train.loop import Run
from semamba.train.recipe import check
from semamba.train.step import start, train_step
from tests.train import tiny


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    torch.manual_seed(1)
    folder = tmp_path / "teacher"
    checkpoint.save(folder, models.build(models.config_from_dict(tiny.ADVANCED)), {})
    return str(folder)


@pytest.mark.parametrize("parallel", [1, 2])
def test_the_student_approaches_a_teacher_that_stays(
    teacher: str, parallel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy, clean = next(tiny.batches(0))
    # a lesson that is not the clean wave, whatever the tiny teacher makes of this noise
    monkeypatch.setattr(Teacher, "teach", lambda self, noisy, clean: self.ask(noisy))

    def train(weight: float) -> float:
        t = start(
            tiny.recipe(
                distil={"teacher": teacher, "weight": weight},
                train={"accumulate": 2, "parallel": parallel},
                loss={"magnitude": 1.0, "phase": 0.0, "complex": 0.0, "time": 0.0, "consistency": 0.0},
                optimiser={"lr": 2e-2, "warmup": 1},
            ),
            torch.device("cpu"),
        )
        assert t.teacher is not None
        before = [value.clone() for value in t.teacher.model.state_dict().values()]
        distances = [float(train_step(t, noisy, clean, 0.0)["distil"]) for _ in range(20)]
        assert distances[-1] < distances[0] or weight < 1
        after = t.teacher.model.state_dict().values()
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert not any(p.requires_grad or p.grad is not None for p in t.teacher.model.parameters())
        return distances[-1]

    assert train(5.0) < 0.9 * train(1e-6)  # the second is as good as no teacher


def test_a_run_with_a_teacher_resumes_to_the_same_weights(teacher: str, tmp_path: Path) -> None:
    by_step = {"schedule": "exponential"}  # a rate that does not depend on how long the run will be

    def run(folder: str, steps: int) -> Run:
        distil = {"teacher": teacher, "weight": 0.5}
        recipe = tiny.recipe(distil=distil, optimiser=by_step, train={"steps": steps, "batch_size": 2})
        made = Run(recipe, tmp_path / folder, tiny.batches, [])
        made.train()
        return made

    whole = run("whole", 3).training.model.state_dict()
    run("parts", 2)
    resumed = run("parts", 3).training.model.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_items_that_the_teacher_makes_worse_are_left_to_the_clean_wave(
    teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Teacher(teacher, torch.device("cpu"))
    noisy, clean = next(tiny.batches(0))
    lesson = torch.stack([clean[0] + 0.5 * (noisy - clean)[0], clean[1] + 2 * (noisy - clean)[1]])
    monkeypatch.setattr(judge, "ask", lambda noisy: lesson)
    taught = judge.teach(noisy, clean)
    assert torch.equal(taught[0], lesson[0]) and torch.equal(taught[1], clean[1])


def test_the_teacher_keeps_level_and_length(teacher: str) -> None:
    noisy, _ = next(tiny.batches(0))
    asked = Teacher(teacher, torch.device("cpu")).ask
    assert asked(noisy).shape == noisy.shape
    torch.testing.assert_close(asked(noisy * 4), asked(noisy) * 4, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("groups", [{"distil": {"weight": 1.0}}, {"distil": {"teacher": "causal-small"}}])
def test_half_a_section_is_refused(groups: dict[str, dict[str, object]]) -> None:
    with pytest.raises(SemambaError, match="distil needs both"):
        check(tiny.recipe(**groups), "recipe")
    assert config.to_dict(tiny.recipe())["distil"] == {"teacher": "", "weight": 0.0}
