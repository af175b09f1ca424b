"""One file through the engine, block by block: the target appears complete or not at all; the source stays."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from semamba import audio
from semamba.errors import SemambaError
from semamba.inference.base import BaseEnhancer, complaints
from semamba.inference.engine import Options

_BLOCK_SECONDS = 2


@dataclass(frozen=True)
class Result:
    """What became of one file."""

    source: Path
    target: Path
    frames: int
    sample_rate: int  # Hz
    channels: int
    elapsed: float  # seconds it took
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


class CancelledError(Exception):
    """Somebody asked to stop; nothing was left behind."""


def enhance_file(
    enhancer: BaseEnhancer,
    source: str | Path,
    target: str | Path | None = None,
    options: Options | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Result:
    """Enhance `source` into `target` (default: `<stem>.enhanced<suffix>` beside it).

    Sample rate, channels, length, container and subtype stay, unless the suffix of `target` asks for another container.
    `progress(done, total)` is called after each block with frames. Raises SemambaError with one clear line.
    """
    source = Path(source)
    target = default_target(source) if target is None else Path(target)
    refuse_overwriting(source, target, overwrite)
    started, taken, given = time.monotonic(), 0, 0
    with audio.open_reader(source) as reader:
        info = reader.info
        media = source if info.format == audio.MEDIA else None
        engine = enhancer.engine(info.channels, info.sample_rate, options)
        with audio.open_writer(target, info, media_source=media) as writer:
            for block in reader.blocks(_BLOCK_SECONDS * info.sample_rate):
                if cancelled():
                    raise CancelledError
                done = engine.push(block)
                writer.write(done)
                taken, given = taken + block.shape[1], given + done.shape[1]
                progress(given, info.frames)
            # A WAV header may well announce no samples; lossy files without any have lost them.
            if not taken and (info.frames != 0 or info.format in ("OGG", "MP3")):
                raise SemambaError(f"{source}: holds no audio that can be read; is it cut off?")
            if taken:
                writer.write(engine.finish())
        warnings = (*reader.warnings, *writer.warnings, *(f"{source}: {line}" for line in complaints(engine)))
    progress(taken, taken)
    return Result(source, target, taken, info.sample_rate, info.channels, time.monotonic() - started, warnings)


def default_target(source: Path) -> Path:
    """`talk.wav` -> `talk.enhanced.wav`."""
    return source.with_name(f"{source.stem}.enhanced{source.suffix}")


def refuse_overwriting(source: Path, target: Path, overwrite: bool) -> None:
    """Raise SemambaError when `target` exists (be it the source itself) and nobody said that it may be replaced."""
    refuse_replacing_input(source, target, overwrite)
    if not overwrite and os.path.exists(target):
        raise SemambaError(f"{target}: exists already; allow its replacement by --overwrite")


def refuse_replacing_input(source: Path, target: Path, overwrite: bool) -> None:
    """Raise SemambaError when `target` is the source itself and nobody said that it may be replaced."""
    if not overwrite and os.path.exists(target) and os.path.exists(source) and target.samefile(source):
        raise SemambaError(
            f"{source}: the output would replace the input; choose another -o or allow it by --overwrite"
        )
