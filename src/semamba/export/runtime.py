"""Exported models at work, without torch: numpy, onnxruntime and soundfile are all that this needs.

>>> from semamba.export.runtime import OnnxEnhancer, OnnxStreamer
>>> enhancer = OnnxEnhancer("exported/")       # a folder written by `semamba export`
>>> better = enhancer(noisy, sample_rate=48000)
>>> enhancer.file("talk.wav", "better.wav")
>>> stream = OnnxStreamer("exported/")         # feed, flush, reset, as semamba.Streamer

Or:  python -m semamba.export.runtime talk.wav -o better.wav --model exported/
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semamba.errors import SemambaError
from semamba.export.framing import Framing
from semamba.inference.base import BaseEnhancer
from semamba.inference.engine import Engine, Options
from semamba.inference.files import Result, enhance_file
from semamba.inference.stages import CausalStage, ChunkStage, chunk_sizes
from semamba.inference.stream import Streamer
from semamba.sessions import open_session

Samples = npt.NDArray[np.float32]

DESCRIPTION = "model.json"
FORMAT = 1  # of the description
_KEYS = {"name", "kind", "form", "stft", "normalise", "input", "output", "states", "graphs"}


class OnnxEnhancer(BaseEnhancer):
    """An exported model, called like a function, as `semamba.Enhancer` is. Threads may share it."""

    def __init__(self, directory: str | Path, precision: str = "float32", threads: int = 1) -> None:
        """`precision`: float32, float16 or int8, as far as it was exported; `threads` of the processor for one call.

        Raises SemambaError when the folder, its description or its graph is missing, damaged, or of another version.
        """
        self.directory = Path(directory)
        self.description = read_description(self.directory)
        self.name, self.precision = str(self.description["name"]), precision
        graph = self._checked_graph(precision)
        self._session = open_session(graph, threads)
        self._framing = Framing(self.description["stft"])

    @property
    def causal(self) -> bool:
        """Whether the model runs hop by hop, and so can stream."""
        return self.description["form"] == "step"

    def engine(self, channels: int, sample_rate: int, options: Options | None = None) -> Engine:
        options = options or Options()
        if self.causal:
            return Engine(StepStage(self, channels), channels, sample_rate, options)
        sizes = chunk_sizes(self.description["kind"], options.chunk_seconds)
        return Engine(WholeStage(self, channels, *sizes), channels, sample_rate, options)

    def file(
        self, source: str | Path, target: str | Path | None = None, options: Options | None = None, **settings: Any
    ) -> Result:
        """One file of any rate, length and number of channels, as `semamba.enhance_file`."""
        return enhance_file(self, source, target, options, **settings)

    def _checked_graph(self, precision: str) -> Path:
        graphs = self.description["graphs"]
        if precision not in graphs:
            raise SemambaError(f"{self.directory}: was not exported as '{precision}', only as {', '.join(graphs)}")
        path = self.directory / graphs[precision]["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SemambaError(f"{path}: cannot be read ({error.strerror}); export the model anew") from None
        if hashlib.sha256(content).hexdigest() != graphs[precision]["sha256"]:
            raise SemambaError(f"{path}: is not the file that {DESCRIPTION} describes; export the model anew")
        return path


class OnnxStreamer(Streamer):
    """`semamba.Streamer` of an exported model: `feed`, `flush`, `reset`, `latency_samples`."""

    def __init__(
        self, directory: str | Path, *arguments: Any, precision: str = "float32", threads: int = 1, **settings: Any
    ) -> None:
        """Settings after the folder are those of `semamba.Streamer`. Raises SemambaError for a model without states."""
        enhancer = OnnxEnhancer(directory, precision, threads)
        if not enhancer.causal:
            raise SemambaError(f"{directory}: '{enhancer.name}' needs the future and cannot stream")
        super().__init__(enhancer, *arguments, **settings)


class StepStage(CausalStage):
    """Frame by frame; the memory is the tail of the analysis, the states of each channel, the tail of the synthesis."""

    def __init__(self, enhancer: OnnxEnhancer, channels: int) -> None:
        self._framing, self._session = enhancer._framing, enhancer._session
        description = enhancer.description
        self._input, self._names = description["input"], [state["name"] for state in description["states"]]
        self._outputs = [description["output"], *(state["output"] for state in description["states"])]
        self._start = [np.zeros(state["shape"], np.float32) for state in description["states"]]
        super().__init__(channels, self._framing.hop, self._framing.overlap)

    def _stream(self, block: Samples, memory: Any) -> tuple[Samples, Any, bool]:
        before, states, after = memory or (None, [self._start] * block.shape[0], None)
        spectrum, before = self._framing.analyse_stream(block, before)
        enhanced = np.empty_like(spectrum)
        states = list(states)
        for channel in range(block.shape[0]):
            values = states[channel]
            for t in range(spectrum.shape[1]):
                feeds = dict(zip(self._names, values, strict=True))
                feeds[self._input] = spectrum[channel : channel + 1, t : t + 1]
                frame, *values = self._session.run(self._outputs, feeds)
                enhanced[channel, t] = frame[0, 0]
            states[channel] = values
        result, after = self._framing.synthesise_stream(enhanced, after)
        return result, (before, states, after), bool(np.isfinite(result).all() and np.isfinite(after).all())


class WholeStage(ChunkStage):
    """A model that needs the future, on chunks."""

    def __init__(self, enhancer: OnnxEnhancer, channels: int, size: int, overlap: int) -> None:
        super().__init__(channels, size, overlap)
        self._framing, self._session = enhancer._framing, enhancer._session
        self._description = enhancer.description

    def _whole(self, wave: Samples) -> tuple[Samples, bool]:
        level = np.float32(1)
        if self._description["normalise"] == "rms":
            level = np.float32(np.sqrt(np.square(wave, dtype=np.float64).mean()))
        if level <= 0:  # an energy that underflows is no level
            level = np.float32(1)
        spectrum = self._framing.analyse(wave / level)
        (enhanced,) = self._session.run([self._description["output"]], {self._description["input"]: spectrum})
        result = self._framing.synthesise(enhanced, wave.shape[1]) * level
        return result, bool(np.isfinite(result).all())


def read_description(directory: Path) -> dict[str, Any]:
    """Content of model.json in an exported folder."""
    path = directory / DESCRIPTION
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SemambaError(f"{directory}: no {DESCRIPTION} here; make it: semamba export MODEL -o FOLDER") from None
    except (OSError, ValueError) as error:
        raise SemambaError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise SemambaError(f"{path}: not a description of format {FORMAT}; export the model anew")
    if lacking := _KEYS - described.keys():
        raise SemambaError(f"{path}: '{min(lacking)}' is missing; export the model anew")
    return described


def main(arguments: Sequence[str] | None = None) -> int:
    """Enhance one file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m semamba.export.runtime", description="Enhance a sound file.")
    parser.add_argument("source", type=Path, help="sound file of any rate and number of channels")
    parser.add_argument("-o", "--output", type=Path, help="default: <name>.enhanced<suffix> beside it")
    parser.add_argument("--model", type=Path, required=True, help="folder written by semamba export")
    parser.add_argument("--precision", default="float32", help="float32, float16 or int8 (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default: %(default)s)")
    parser.add_argument("--attenuation-limit", type=float, metavar="DB", help="let the noise fall by this much at most")
    parser.add_argument("--mix", type=float, default=1.0, help="share of the enhanced signal (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    given = parser.parse_args(arguments)
    try:
        options = Options(attenuation_limit=given.attenuation_limit, mix=given.mix)
        enhancer = OnnxEnhancer(given.model, given.precision, given.threads)
        result = enhancer.file(given.source, given.output, options, overwrite=given.overwrite)
    except SemambaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in result.warnings:
        print(f"warning: {line}", file=sys.stderr)
    print(f"{result.target}: {result.seconds:.1f} s of sound in {result.elapsed:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
