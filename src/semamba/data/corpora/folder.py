"""One's own recordings: pairs in clean/ and noisy/, or material to mix in clean/ (or speech/), noise/ and rir/.

All of it may lie in train/, valid/ and test/; without these, some speakers (sub-folders of clean/) or, where there are
none, some files are held out for validation. Pairs share their path below clean/ and noisy/, but for the suffix.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from semamba.data.corpora.layout import (
    PAIR,
    Corpus,
    Layout,
    Unit,
    Wishes,
    audio_below,
    choose,
    count,
    flat_name,
    held_out,
    pair_up,
)

SPLITS = ("train", "valid", "test")
VALID_SHARE = 0.1
MIN_SPEAKERS = 3  # fewer speakers than this are not worth losing one: files are held out instead


def scan(source: Path, wishes: Wishes) -> Layout:
    layout = Layout()
    splits = [name for name in SPLITS if (source / name).is_dir()]
    for split in splits or ["train"]:
        _scan_split(source / split if splits else source, split, layout)
    if not layout.units and not layout.faults:
        layout.faults.append(
            "neither clean/ with noisy/ (pairs), nor clean/ or speech/ with noise/ (material to mix), with audio files"
        )
    if "valid" not in splits:
        _hold_out(layout, wishes)
    return layout


def _scan_split(root: Path, split: str, layout: Layout) -> None:
    clean, noisy = root / "clean", root / "noisy"
    if clean.is_dir() and noisy.is_dir():
        sides = []
        for folder in (clean, noisy):
            files = audio_below(folder)
            count(layout, folder.relative_to(root.parent).as_posix(), len(files))
            sides.append({path.relative_to(folder).with_suffix("").as_posix(): path for path in files})
        for first, second in pair_up(layout, root.name, *sides).values():
            unit = Unit(split, PAIR, flat_name(first, clean), first, second, _speaker(first, clean))
            layout.units.append(unit)
    elif noisy.is_dir():
        layout.faults.append(f"{root.name}/noisy has no {root.name}/clean beside it")
    for kind, names in (
        ("speech", ("speech",) if noisy.is_dir() else ("speech", "clean")),
        ("noise", ("noise",)),
        ("rir", ("rir",)),
    ):
        for name in names:
            folder = root / name
            if not folder.is_dir():
                continue
            files = audio_below(folder)
            count(layout, folder.relative_to(root.parent).as_posix(), len(files))
            for path in files:
                speaker = _speaker(path, folder) if kind == "speech" else ""
                layout.units.append(Unit(split, kind, flat_name(path, folder), path, speaker=speaker))


def _speaker(path: Path, folder: Path) -> str:
    return "" if path.parent == folder else path.relative_to(folder).parts[0]


def _hold_out(layout: Layout, wishes: Wishes) -> None:
    """Move some of the training units to validation: voices, and noise files; room responses stay."""
    share = VALID_SHARE if wishes.valid_share is None else wishes.valid_share
    voiced = [unit for unit in layout.units if unit.split == "train" and unit.kind in (PAIR, "speech")]
    speakers = {unit.speaker for unit in voiced}
    by_speaker = wishes.valid_speakers is not None or len(speakers) >= MIN_SPEAKERS
    if by_speaker:
        chosen = held_out(speakers, wishes, choose(speakers, share))
    else:
        chosen = choose((unit.name for unit in voiced), share)
    noises = choose((unit.name for unit in layout.units if unit.kind == "noise" and unit.split == "train"), share)

    def goes(unit: Unit) -> bool:
        if unit.kind == "noise":
            return unit.name in noises
        return unit.kind != "rir" and (unit.speaker if by_speaker else unit.name) in chosen

    layout.units = [replace(u, split="valid") if u.split == "train" and goes(u) else u for u in layout.units]
    if chosen and share > 0:
        who = ", ".join(sorted(chosen)[:5]) + (" ..." if len(chosen) > 5 else "")
        layout.notes.append(f"held out for validation, {'speakers' if by_speaker else 'files'}: {who}")
    if voiced and not chosen and share > 0:
        layout.notes.append("nothing is held out for validation: one file is too few; put some into valid/")


CORPUS = Corpus(
    name="folder",
    title="own recordings",
    page="",
    licence="your own",
    scan=scan,
    align=True,
)
