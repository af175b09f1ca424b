"""The run: batches, steps, validation, checkpoints, until the steps or the time are used up or someone says stop.

With several ranks every decision follows from `Training.elapsed`, which they agree on once a step, so that all of them
take the same turn; rank 0 alone validates, logs and writes.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from semamba import checkpoint, config
from semamba.data.dataset import Pair
from semamba.errors import SemambaError, out_of_memory
from semamba.train import state
from semamba.train.distributed import Ranks, choose_device
from semamba.train.recipe import Recipe
from semamba.train.scores import score_all
from semamba.train.state import RunFolder
from semamba.train.step import Training, start, train_step
from semamba.train.tracking import Display, Means, Tracker, duration, terms
from semamba.train.validate import validate

BUDGET, SLICE = 1000, 999  # reasons to stop, above every signal number
Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]  # first step -> pairs (noisy, clean), each (B, n)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `stopped` is 'done', 'budget', 'slice' or a signal number; scores: of the last validation."""

    step: int
    scores: dict[str, float]
    best: float
    stopped: str | int

    @property
    def reason(self) -> str:
        words = {"done": "all steps done", "budget": "time budget used up"}
        words["slice"] = "slice over, the same command goes on"
        return words.get(str(self.stopped), f"stopped by signal {self.stopped}, state saved")


class Run:
    """One training run in a folder. `train()` returns when it is over; everything worth keeping is then on disk."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        batches: Batches,
        pairs: list[Pair],
        budget: float | None = None,
        resume: str | Path = "auto",
        sources: list[dict[str, Any]] | None = None,
        display: Display | None = None,
        ranks: Ranks | None = None,
        slice_seconds: float = math.inf,
    ) -> None:
        """`budget` in seconds counts all parts of the run; `resume` is 'auto', 'never' or a state file.

        `batches` gives this rank's rows. `slice_seconds` ends this part of the run; the schedule does not know of it.
        """
        check_start(recipe, folder, budget, resume)
        self.ranks = ranks or Ranks(choose_device(recipe.train.device))
        check_share(recipe, self.ranks)
        self.recipe, self.folder, self.batches, self.pairs = recipe, RunFolder(folder), batches, pairs
        self.budget = math.inf if budget is None else budget
        self.meta: dict[str, Any] = {"recipe": config.to_dict(recipe), "sources": sources or []}
        self.slice_seconds = slice_seconds
        self.display = display or Display(silent=not self.ranks.first)
        self.training = self._begin(resume)
        self.stop_signal = 0
        self._validation_seconds = 0.0
        if self.ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint.write_json(self.folder.description, self.meta)

    def _begin(self, resume: str | Path) -> Training:
        self.given = False
        t = start(self.recipe, self.ranks.device, self.ranks)
        path = self.folder.state if resume in ("auto", "never") else Path(resume)
        own = path.resolve() == self.folder.state.resolve()
        if resume != "never" and (resume != "auto" or path.exists()):
            state.load_state(t, path)
            if own:
                self._recall()
            else:  # the best weights of that run are not in this folder
                t.best, t.scores, self.given = -math.inf, {}, True
            self.display.say(f"resumed {path} at step {t.step}, {duration(t.elapsed)} trained")
        elif self.recipe.init:
            self.given = True
            checkpoint.load_weights(t.model, self.recipe.init, larger=True)
            t.ema.model.load_state_dict(t.model.state_dict())
        if self.ranks.highest(t.step, -t.step) != [t.step, -t.step]:
            raise SemambaError(f"{path}: not the same for all processes; --out must be on a disk that all of them see")
        return t

    def _recall(self) -> None:
        """Keep the scores of the unprocessed pairs, if they are the same pairs."""
        try:
            before = json.loads(self.folder.description.read_text(encoding="utf-8"))
            same = before["recipe"]["valid"] == self.meta["recipe"]["valid"]
            if same and before["validation"]["pairs"] == len(self.pairs):
                self.meta["validation"] = before["validation"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # they are scored again at the next validation

    def train(self) -> Outcome:
        t, every = self.training, self.recipe.train
        tracker = Tracker(self.folder.log, t.step) if self.ranks.first else None
        means = Means()
        self._started = time.monotonic() - t.elapsed
        saved = self._validated = self._slice_begun = t.elapsed
        stopped: str | int = "done"
        batches = self.batches(t.step)
        try:
            with self._signals():
                if self.given:
                    self._validate(tracker)  # weights that were given are the best until others score higher
                while t.step < self._last_step():
                    batch = self._next(batches)
                    reason = self._tick()
                    if reason or batch is None:
                        stopped = {BUDGET: "budget", SLICE: "slice"}.get(reason, reason)
                        break
                    means.add(self._step(*batch))
                    if tracker is not None and t.step % every.log_every == 0:
                        self._report(tracker, means.take())
                    if self._due():
                        self._validate(tracker)
                    if t.elapsed - saved > every.checkpoint_minutes * 60:
                        self._save()
                        saved = t.elapsed
                if not isinstance(stopped, int) and t.step:
                    self._validate(tracker)
            t.elapsed = time.monotonic() - self._started
            self._save(final=True)
        finally:
            if tracker is not None:
                tracker.close()
            self.display.close()
            t.close()
            close = getattr(batches, "close", None)
            if close is not None:
                close()
        return Outcome(t.step, t.scores, t.best, stopped)

    def _tick(self) -> int:
        """Agree with the other ranks on the time, and on a reason to stop: a signal's number, BUDGET, or 0."""
        elapsed = time.monotonic() - self._started
        wish = self.stop_signal
        if not wish and elapsed >= self.budget - self._validation_seconds:
            wish = BUDGET
        elif not wish and elapsed - self._slice_begun >= self.slice_seconds - self._validation_seconds:
            wish = SLICE
        self.training.elapsed, reason = self.ranks.highest(elapsed, wish)
        return int(reason)

    def _step(self, noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        try:
            return train_step(self.training, noisy, clean, self.progress())
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            size, parts = f"{len(clean)} pairs of {clean.shape[-1] / 16000:g} s", self.recipe.train.accumulate
            raise SemambaError(
                f"out of memory at step {self.training.step} on {self.ranks.device}, with {size}: raise "
                f"train.accumulate (now {parts}, a divisor of train.batch_size), or lower train.batch_size or "
                "mix.crop_seconds; the last checkpoint is kept"
            ) from None

    def progress(self) -> float:
        """Fraction of the run behind us: by steps, or by time when the recipe leaves the steps open."""
        steps = self.recipe.train.steps
        return self.training.elapsed / self.budget if steps == "auto" else self.training.step / steps

    def _next(self, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        """The next batch, or None when a signal to stop has also ended the processes that make batches."""
        try:
            batch = next(batches)
        except RuntimeError as error:
            if self.stop_signal:
                return None
            raise SemambaError(f"mixing a batch failed at step {self.training.step}: {error}") from None
        # torch raises from a SIGCHLD handler, even in the middle of a step, when a worker dies; without the
        # handler the loader notices at the next batch, when the weights and the step count agree.
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return batch

    def _last_step(self) -> float:
        steps = self.recipe.train.steps
        return math.inf if steps == "auto" else steps

    def _due(self) -> bool:
        every, t = self.recipe.train, self.training
        by_steps = every.validate_every and t.step % every.validate_every == 0
        since = t.elapsed - self._validated
        return bool(by_steps or (every.validate_minutes and since > every.validate_minutes * 60))

    def _report(self, tracker: Tracker, values: dict[str, float]) -> None:
        t = self.training
        elapsed, rate = t.elapsed, t.optimiser.param_groups[0]["lr"]
        tracker.write(t.step, "train", {**values, "lr": rate}, seconds=round(elapsed, 1), bad_steps=t.bad_steps)
        done = min(max(self.progress(), elapsed / self.budget), 1.0)
        left = elapsed / done - elapsed if done > 0 else math.inf
        remaining = duration(left) if math.isfinite(left) else "?"
        self.display.progress(done, f"step {t.step}  {terms(values)}  lr {rate:.2e}  {remaining} left")

    def _validate(self, tracker: Tracker | None) -> None:
        self._validated = self.training.elapsed
        if tracker is None or not self.pairs:
            return
        t, cfg = self.training, self.recipe.valid
        if t.scores and t.scores.get("step") == t.step:
            return
        begun = time.monotonic()
        if "validation" not in self.meta:
            noisy = score_all(((pair.clean, pair.noisy) for pair in self.pairs), cfg.jobs)
            if not math.isfinite(noisy[cfg.score]):
                raise SemambaError(
                    f"valid.score={cfg.score} is defined for none of the {len(self.pairs)} validation pairs, so no "
                    "weights could be chosen by it; give longer pairs with speech in them, or another valid.score"
                )
            self.meta["validation"] = {"pairs": len(self.pairs), "noisy": noisy}
            checkpoint.write_json(self.folder.description, self.meta)
            self.display.say(f"unprocessed validation pairs: {terms(noisy)}")
        scores = validate(t.ema.model, t.spectrum, self.pairs, t.device, cfg.jobs)
        self._validation_seconds = time.monotonic() - begun
        t.scores = {**scores, "step": float(t.step)}
        tracker.write(t.step, "valid", scores, seconds=round(self._validation_seconds, 1))
        better = scores[cfg.score] > t.best
        self.display.say(f"step {t.step}  validation: {terms(scores)}{'  (best so far)' if better else ''}")
        if better:
            t.best = scores[cfg.score]
            self._keep(lambda: state.save_model(t, self.folder.best, self.meta))

    def _save(self, final: bool = False) -> None:
        t = self.training
        self._keep(lambda: state.save_state(t, self.folder.state), final)
        if self.ranks.first:
            self._keep(lambda: state.save_model(t, self.folder.last, self.meta), final)

    def _keep(self, write: Callable[[], None], final: bool = False) -> None:
        """A full disk must not end a long run: the last good file stays, and the next checkpoint tries again."""
        try:
            write()
        except (OSError, RuntimeError) as error:
            reason = f"could not write a checkpoint in {self.folder.path}: {error}"
            if final:
                raise SemambaError(f"{reason}; the last good one is still there, resume from it") from None
            self.display.say(f"warning: {reason}; going on, the last good one is kept")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM lets the step finish and saves; a second Ctrl-C interrupts at once."""

        def note(number: int, frame: Any) -> None:
            self.stop_signal = number
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def check_start(recipe: Recipe, folder: Path, budget: float | None, resume: str | Path) -> None:
    """What can be refused before any audio is read."""
    if recipe.train.steps == "auto" and budget is None:
        raise SemambaError("train.steps is 'auto', which needs a time budget: give --time-budget, or a step count")
    saved = RunFolder(folder).state
    if resume == "never" and saved.exists():
        raise SemambaError(f"{saved}: a run exists here; give another --out, or --resume auto to go on with it")


def check_share(recipe: Recipe, ranks: Ranks) -> None:
    """Every rank takes the same number of rows, and splits them into as many micro-batches."""
    size, parts = recipe.train.batch_size, ranks.world * recipe.train.accumulate
    if size % parts:
        raise SemambaError(
            f"train.batch_size ({size}) must be a multiple of the number of processes times train.accumulate ({parts})"
        )
