"""All training audio in one int16 array in memory (two hours of 16 kHz are 260 MB); a crop is a slice of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from semamba.data.manifest import KINDS, PAIRED, Entry, Manifest
from semamba.data.reading import read_int16
from semamba.errors import SemambaError
from semamba.files import write_atomic

FRAME_SECONDS = 0.01
ACTIVE_BELOW_DB = 25.0  # a frame speaks when it is at most this far below the loud frames of its file
_FADE = 80  # samples faded at both ends of a file, so that neighbours of one voice join without a click
_READERS = 4  # files decoded at a time

Piece = tuple[Entry, np.ndarray]


@dataclass(frozen=True)
class Track:
    """Samples `start:stop` of the bank: one file; `voice` is whose speech it is, or the pair that it belongs to."""

    kind: str
    name: str
    voice: str
    start: int
    stop: int


class SpeechBank:
    """Speech, noise and room responses of one split.

    audio: int16 (samples,), files one after another, the files of one voice adjacent.
    voices: name -> (start, stop), the stretch of `audio` that one voice fills.
    noises, rirs: (start, stop) of every file.
    pairs: (start of the clean side, start of the noisy side, samples) of every recorded pair.
    """

    def __init__(self, audio: np.ndarray, tracks: Iterable[Track], sample_rate: int = 16000) -> None:
        self.audio, self.tracks, self.sample_rate = np.asarray(audio), tuple(tracks), sample_rate
        self.frame = round(FRAME_SECONDS * sample_rate)
        self.voices: dict[str, tuple[int, int]] = {}
        for track in self.tracks:
            if track.kind == "speech":
                start, _ = self.voices.get(track.voice, (track.start, 0))
                self.voices[track.voice] = (start, track.stop)
        self.noises = [(track.start, track.stop) for track in self.tracks if track.kind == "noise"]
        self.rirs = [(track.start, track.stop) for track in self.tracks if track.kind == "rir"]
        self.pairs = _match(self.tracks, self.frame)
        self._active = self._count_active()

    @classmethod
    def load(
        cls, manifest: Manifest, split: str = "train", sample_rate: int = 16000, cache: str | Path | None = None
    ) -> SpeechBank:
        """Read every speech, noise and rir file and every recorded pair of the split (mono, `sample_rate`).

        A file that cannot be read is named in a warning and left out. With `cache` (a folder), the
        array is kept there and memory-mapped by later calls while the files stay as they are.
        Raises SemambaError when neither speech nor a pair is left.
        """
        entries = _usable(manifest, split)
        if any(entry.shard for entry in entries):
            raise SemambaError(f"{manifest.origin}: split '{split}' lies in shards, which are read window by window")
        stem = None if cache is None else Path(cache) / f"bank-{_fingerprint(entries, sample_rate)}"
        if stem is not None and _index(stem).exists():
            return cls.open(stem, sample_rate)
        bank = cls.build(read_files(entries, sample_rate), sample_rate)
        if not (bank.voices or bank.pairs):
            raise SemambaError(
                f"{manifest.origin}: no readable speech or pairs in split '{split}'; check the split and kind columns"
            )
        if stem is None:
            return bank
        bank.save(stem)
        return cls.open(stem, sample_rate)

    @classmethod
    def build(cls, pieces: Iterable[Piece], sample_rate: int = 16000) -> SpeechBank:
        """A bank of files and their samples (n,) int16, in any order."""
        return cls(*_assemble(pieces), sample_rate)

    def save(self, stem: Path) -> None:
        """Write `stem`.npy and `stem`.json for `open`."""
        stem.parent.mkdir(parents=True, exist_ok=True)

        def dump(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.save(stream, self.audio)

        write_atomic(_array(stem), dump)
        text = json.dumps([asdict(track) for track in self.tracks])
        write_atomic(_index(stem), lambda temporary: temporary.write_text(text))  # last: an index always has its array

    @classmethod
    def open(cls, stem: Path, sample_rate: int = 16000) -> SpeechBank:
        """A saved bank, its array mapped into memory."""
        tracks = [Track(**fields) for fields in json.loads(_index(stem).read_text())]
        return cls(np.load(_array(stem), mmap_mode="r"), tracks, sample_rate)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of audio by kind."""
        totals = dict.fromkeys(KINDS, 0.0)
        for track in self.tracks:
            totals[track.kind] += (track.stop - track.start) / self.sample_rate
        return totals

    def noise_chances(self, weights: Mapping[str, float]) -> np.ndarray:
        """(noises,): how often each noise file is to be drawn, in sum 1; every file alike where nothing is said.

        `weights` maps patterns (with * and ?, small letters) to factors. A pattern is compared with the folder and the
        name of a file, "street/tram.flac"; the first that fits counts. Raises SemambaError when no noise is left.
        """
        paths = [Path(track.name) for track in self.tracks if track.kind == "noise"]
        names = [f"{path.parent.name}/{path.name}".lower() for path in paths]
        fitting = (next((w for p, w in weights.items() if fnmatchcase(name, p)), 1.0) for name in names)
        chances = np.fromiter(fitting, np.float64, len(names))
        if len(names) and not chances.any():
            raise SemambaError("mixing: noise_weights leaves no noise file; give one of them a weight above 0")
        return chances / max(chances.sum(), 1e-300)

    def activity(self, start: Any, stop: Any) -> Any:
        """Share of the 10-ms frames in `start:stop` that carry speech, 0 to 1; of integers, or of arrays of them."""
        first = start // self.frame
        last = np.maximum(stop // self.frame, first + 1)
        return (self._active[np.minimum(last, len(self._active) - 1)] - self._active[first]) / (last - first)

    def _count_active(self) -> np.ndarray:
        count = np.zeros(len(self.audio) // self.frame + 1, np.int32)
        for track in self.tracks:
            first, last = -(-track.start // self.frame), track.stop // self.frame
            if track.kind in ("speech", "paired_clean") and last > first:
                frames = self.audio[first * self.frame : last * self.frame].reshape(-1, self.frame)
                power = np.square(frames, dtype=np.float32).mean(axis=1)
                count[first + 1 : last + 1] = power > np.percentile(power, 95) * 10 ** (-ACTIVE_BELOW_DB / 10)
        return np.cumsum(count, dtype=np.int32)


def read_files(entries: Iterable[Entry], sample_rate: int) -> Iterator[Piece]:
    """Every readable file with its samples, in order; the others are named in warnings."""

    def read(entry: Entry) -> tuple[Entry, np.ndarray | None, str]:
        try:
            return entry, read_int16(entry.path, sample_rate, first_channel=entry.kind == "rir"), ""
        except SemambaError as error:
            return entry, None, str(error)

    with ThreadPoolExecutor(_READERS) as pool:
        for entry, samples, problem in pool.map(read, entries):
            if samples is None:
                warnings.warn(f"{problem}; left out", stacklevel=2)
            else:
                yield entry, samples


def _assemble(pieces: Iterable[Piece]) -> tuple[np.ndarray, list[Track]]:
    """One array of all samples, kind by kind and voice by voice, and what lies where."""
    ordered = sorted(pieces, key=lambda piece: (piece[0].kind, _voice(piece[0]) if piece[0].kind == "speech" else ""))
    audio = np.empty(sum(len(samples) for _, samples in ordered), np.int16)
    tracks: list[Track] = []
    position = 0
    ordered.reverse()
    while ordered:  # taken one by one, so that the pieces and the array are not in memory twice
        entry, samples = ordered.pop()
        if entry.kind == "speech" and len(samples) > 2 * _FADE:
            samples = _fade_ends(samples)
        stop = position + len(samples)
        audio[position:stop] = samples
        tracks.append(Track(entry.kind, str(entry.path), _voice(entry), position, stop))
        position = stop
    return audio, tracks


def _fade_ends(piece: np.ndarray) -> np.ndarray:
    piece = piece.copy()
    ramp = np.linspace(0, 1, _FADE, dtype=np.float32)
    piece[:_FADE] = (piece[:_FADE] * ramp).astype(np.int16)
    piece[-_FADE:] = (piece[-_FADE:] * ramp[::-1]).astype(np.int16)
    return piece


def _voice(entry: Entry) -> str:
    """What the tracks of an entry have in common: a speaker, or a pair."""
    if entry.kind in PAIRED:
        return " ".join(entry.pair_key)
    return (entry.speaker or entry.path.parent.name) if entry.kind == "speech" else ""


def _usable(manifest: Manifest, split: str) -> list[Entry]:
    """Rows of the split that belong into a bank; half a pair is named in a warning and left out."""
    pairs, alone = manifest.partners(split)
    for entry in alone:
        warnings.warn(f"{entry.path} ({entry.kind}) has no partner of the same name; left out", stacklevel=3)
    rows = [entry for entry in manifest.select(split) if entry.kind in ("speech", "noise", "rir")]
    return rows + [entry for pair in pairs for entry in pair]


def _match(tracks: Iterable[Track], tolerance: int) -> list[tuple[int, int, int]]:
    sides: dict[str, dict[str, Track]] = {kind: {} for kind in PAIRED}
    for track in tracks:
        if track.kind in sides:
            sides[track.kind][track.voice] = track
    pairs = []
    for key, clean in sides["paired_clean"].items():
        noisy = sides["paired_noisy"].get(key)
        if noisy is None:
            continue  # it could not be read, which was said
        sizes = (clean.stop - clean.start, noisy.stop - noisy.start)
        if abs(sizes[0] - sizes[1]) > tolerance:
            lengths = f"{sizes[1]} samples, but its clean partner has {sizes[0]}"
            warnings.warn(f"{noisy.name}: {lengths}; left out", stacklevel=3)
        else:
            pairs.append((clean.start, noisy.start, min(sizes)))
    return pairs


def _array(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.npy")


def _index(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.json")


def _fingerprint(entries: list[Entry], sample_rate: int) -> str:
    digest = sha256(str(sample_rate).encode())
    for entry in entries:
        status = entry.path.stat() if entry.path.exists() else None
        stamp = (status.st_size, status.st_mtime_ns) if status else None
        digest.update(repr((str(entry.path), entry.kind, entry.speaker, stamp)).encode())
    return digest.hexdigest()[:16]
