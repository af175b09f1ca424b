"""Deep Noise Suppression Challenge (Reddy et al. 2020): read speech, noise, room responses, and synthetic test pairs.

Layouts of the years differ in their folders' names: datasets/{clean,noise,impulse_responses} with the spoken material
in clean or clean/read_speech, datasets_fullband/{clean_fullband,noise_fullband}, or read_speech beside noise.
Test pairs, test_set/synthetic/{no_reverb,with_reverb}/{clean,noisy}, share the number after `fileid_`.
"""

from __future__ import annotations

import re
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
    find_folder,
    flat_name,
    held_out,
    pair_up,
)

CLEAN = ("clean", "clean_fullband", "read_speech")
NOISE = ("noise", "noise_fullband")
ROOMS = ("impulse_responses",)
TEST_PAIRS = {"no_reverb": 150, "with_reverb": 150}
VALID_SHARE = 0.02


def scan(source: Path, wishes: Wishes) -> Layout:
    layout = Layout()
    root = find_folder(source, "datasets", "datasets_fullband") or source
    share = VALID_SHARE if wishes.valid_share is None else wishes.valid_share
    for kind, names in (("speech", CLEAN), ("noise", NOISE), ("rir", ROOMS)):
        folder = find_folder(root, *names)
        if folder is None:
            layout.faults.append(f"the folder {root.name}/{names[0]} is missing")
            continue
        files = [path for path in audio_below(folder) if kind != "rir" or _is_response(path)]
        count(layout, f"{root.name}/{folder.name}", len(files))
        names_of = {path: flat_name(path, folder) for path in files}
        speakers = {path: _speaker(path, folder) if kind == "speech" else "" for path in files}
        if kind == "speech":
            valid = held_out(set(speakers.values()), wishes, choose(speakers.values(), share))
        else:
            valid = choose(names_of.values(), share) if kind == "noise" else set()
        for path in files:
            split = "valid" if (speakers[path] if kind == "speech" else names_of[path]) in valid else "train"
            layout.units.append(Unit(split, kind, names_of[path], path, speaker=speakers[path]))
    _scan_test(root, layout)
    return layout


def _scan_test(root: Path, layout: Layout) -> None:
    folder = find_folder(root, "synthetic")
    if folder is None:
        layout.notes.append(f"no test pairs: {root.name}/test_set/synthetic is not there")
        return
    for group, expected in TEST_PAIRS.items():
        sides = []
        for side in ("clean", "noisy"):
            place = folder / group / side
            files = audio_below(place) if place.is_dir() else []
            count(layout, f"synthetic/{group}/{side}", len(files), expected)
            sides.append({found[1]: path for path in files if (found := re.search(r"fileid_(\d+)$", path.stem))})
        for number, (clean, noisy) in pair_up(layout, f"synthetic/{group}", *sides).items():
            layout.units.append(Unit("test", PAIR, f"fileid_{number}", clean, noisy, group=group))


def _speaker(path: Path, folder: Path) -> str:
    """The reader that the file name tells, else the folder (singers, emotions, languages)."""
    found = re.search(r"reader_(\d+)", path.stem)
    return f"reader-{found[1]}" if found else path.parent.relative_to(folder.parent).as_posix().replace("/", "-")


def _is_response(path: Path) -> bool:
    # the collection of real rooms has their background noise, and point sources, beside the responses
    return "noise" not in path.stem.lower() and "pointsource_noises" not in path.parts


CORPUS = Corpus(
    name="dns",
    title="DNS Challenge",
    page="https://github.com/microsoft/DNS-Challenge",
    licence="licence of each source, listed in the README of the official repository",
    scan=scan,
)
