"""Corpora too large for single files: tar archives of a few hundred megabytes (the WebDataset format), read in one go.

A shard is a random cross-section of the corpus, so a few of them make good training material. The manifest keeps its
rows; the path of a row then leads into an archive, as in shards/train-00003.tar/speech/000123.flac. A noise keeps its
folder and name, which say what it is (noise/000124-street-tram.flac). Room responses are few and stay single files.
"""

from __future__ import annotations

import io
import math
import re
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np

from semamba.data.bank import Piece
from semamba.data.manifest import PAIRED, Entry, Manifest
from semamba.data.reading import read_int16
from semamba.errors import SemambaError
from semamba.files import write_atomic

SHARDED = ("speech", "noise", *PAIRED)
_FLAC_SHARE = 0.6  # of the size of plain 16-bit samples


def write_shards(
    manifest: Manifest,
    out: Path,
    split: str = "train",
    shard_mb: float = 512,
    sample_rate: int = 16000,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Pack the rows of `split` into about equal archives below `out`, and write out/manifest.csv.

    Other rows keep their files. A file that cannot be read is named in a warning and loses its row, and so does its
    partner. Raises SemambaError when nothing is left.
    """
    units = _units(manifest, split)
    if not units:
        raise SemambaError(f"{manifest.origin}: no speech, noise or pairs in split '{split}' to put into shards")
    size = sum(_bytes(entry, sample_rate) for unit in units for entry in unit) * _FLAC_SHARE
    piles = _deal(units, math.ceil(size / (shard_mb * 2**20)), seed)
    packed = {entry for unit in units for entry in unit}
    rows = [entry for entry in manifest if entry not in packed]
    number = 0  # of the units packed so far
    done = count()
    (out / "shards").mkdir(parents=True, exist_ok=True)
    for index, pile in enumerate(piles):
        path = out / "shards" / f"{split.replace('/', '-')}-{index:05d}.tar"
        written = _write_shard(path, pile, number, sample_rate, lambda: progress(next(done) + 1, len(units)))
        number += len({entry.path.stem for entry in written})
        rows += written
    if not number:
        raise SemambaError(f"{manifest.origin}: none of the {len(units)} files of split '{split}' is readable")
    result = Manifest(tuple(rows), str(out / "manifest.csv"))
    result.write(out / "manifest.csv")
    return result


def _write_shard(
    path: Path, pile: list[tuple[Entry, ...]], number: int, sample_rate: int, tick: Callable[[], None]
) -> list[Entry]:
    """The entries of the pile as they lie in the shard; their files are numbered from `number` on."""
    written: list[Entry] = []

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as stream, _library().TarWriter(stream, encoder=False, mtime=0) as tar:
            names = count(number)
            for unit in pile:
                tick()
                try:
                    contents = [_encoded(entry, sample_rate) for entry in unit]
                except SemambaError as error:
                    warnings.warn(f"{error}; left out", stacklevel=4)
                    continue
                name = f"{next(names):06d}"
                for entry, (content, seconds) in zip(unit, contents, strict=True):
                    key = f"{_folder(entry)}/{name}{_label(entry)}"
                    tar.write({"__key__": key, "flac": content})
                    written.append(replace(entry, path=(path / f"{key}.flac").absolute(), seconds=seconds))

    write_atomic(path, fill)
    if not written:
        path.unlink()
    return written


def read_shard(path: Path, entries: Iterable[Entry], sample_rate: int) -> Iterator[Piece]:
    """The entries that lie in the shard, with their samples (n,) int16. What cannot be read is named in a warning.

    Reading does without the library that writes, whose import takes seconds that a new process would wait for.
    """
    wanted = {entry.path.relative_to(path).as_posix(): entry for entry in entries}
    try:
        with tarfile.open(path, "r|") as archive:  # a stream: from the first byte to the last
            for member in archive:
                entry, content = wanted.get(member.name), archive.extractfile(member)
                if entry is None or content is None:
                    continue
                data = content.read()
                del wanted[member.name]
                try:
                    yield entry, read_int16(entry.path, sample_rate, data)
                except SemambaError as error:
                    warnings.warn(f"{error}; left out", stacklevel=2)
    except (OSError, tarfile.TarError, EOFError) as error:
        warnings.warn(f"{path}: damaged or missing ({error}); {len(wanted)} files left out", stacklevel=2)
    else:
        if wanted:
            warnings.warn(f"{path}: {len(wanted)} files of the manifest are not in it", stacklevel=2)


def _units(manifest: Manifest, split: str) -> list[tuple[Entry, ...]]:
    """What must stay together: single files, and the two sides of a pair."""
    pairs, alone = manifest.partners(split)
    for entry in alone:
        warnings.warn(f"{entry.path} ({entry.kind}) has no partner of the same name; left out", stacklevel=3)
    singles = (entry for entry in manifest.select(split) if entry.kind in SHARDED and entry.kind not in PAIRED)
    return [*((entry,) for entry in singles), *pairs]


def _deal(units: list[tuple[Entry, ...]], piles: int, seed: int) -> list[list[tuple[Entry, ...]]]:
    """Shuffled, and dealt kind by kind, so that every pile has its share of each."""
    rng = np.random.default_rng([seed, 5])
    order = [units[int(index)] for index in rng.permutation(len(units))]
    order.sort(key=lambda unit: unit[0].kind)
    return [order[start::piles] for start in range(min(piles, len(order)))]


def _encoded(entry: Entry, sample_rate: int) -> tuple[bytes, float]:
    """The file as 16-bit mono FLAC (its own bytes where it is that already), and its seconds."""
    import soundfile

    samples = read_int16(entry.path, sample_rate)
    info = soundfile.info(str(entry.path))
    if (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", sample_rate, 1):
        return entry.path.read_bytes(), len(samples) / sample_rate
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue(), len(samples) / sample_rate


def _folder(entry: Entry) -> str:
    return entry.kind.removeprefix("paired_")


def _label(entry: Entry) -> str:
    """What the path of a noise says about it, for `SpeechBank.noise_chances`."""
    if entry.kind != "noise":
        return ""
    return "-" + re.sub("[^a-z0-9]+", "-", f"{entry.path.parent.name}-{entry.path.stem}".lower()).strip("-")


def _bytes(entry: Entry, sample_rate: int) -> float:
    if entry.seconds:
        return 2 * sample_rate * entry.seconds
    try:
        return entry.path.stat().st_size
    except OSError:
        return 0.0


def _library() -> ModuleType:
    try:
        import webdataset
    except ImportError:
        raise SemambaError("writing shards needs an extra library: pip install 'semamba[scale]'") from None
    return webdataset
