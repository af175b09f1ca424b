"""REVERB challenge (Kinoshita et al. 2013): speech in measured rooms, one channel of each recording, with its source.

Layout: REVERB_WSJCAM0_{dt,et}/data/{near_test,far_test,cln_test}/..., files NAME_ch1.wav and NAME.wav; the training
pairs that the challenge's tool makes, REVERB_WSJCAM0_tr/data/{mc_train,mc_train_clean or cln_train}. The recordings of
MC_WSJ_AV_{Dev,Eval} (RealData) have no clean reference, so they are counted and left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from semamba.data.corpora.layout import PAIR, Corpus, Layout, Unit, Wishes, audio_below, count, find_folder, pair_up

# Folder -> split, and for each group of the manifest the folders of (reverberant, clean) speech.
SETS: dict[str, tuple[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]]] = {
    "REVERB_WSJCAM0_tr": ("train", {"mixed": (("mc_train",), ("mc_train_clean", "cln_train"))}),
    "REVERB_WSJCAM0_dt": ("valid", {side: ((f"{side}_test",), ("cln_test",)) for side in ("near", "far")}),
    "REVERB_WSJCAM0_et": ("test", {side: ((f"{side}_test",), ("cln_test",)) for side in ("near", "far")}),
}
TRAINING_FILES = 7861  # of WSJCAM0, which the tool convolves
REAL = ("MC_WSJ_AV_Dev", "MC_WSJ_AV_Eval")


def scan(source: Path, wishes: Wishes) -> Layout:
    layout = Layout()
    for name, (split, groups) in SETS.items():
        folder = find_folder(source, name)
        if folder is None:
            (layout.notes if split == "train" else layout.faults).append(f"the folder {name} is missing")
            continue
        for group, sides in groups.items():
            wet, clean = (_files(folder, names, layout) for names in sides)
            for key, (clean_file, wet_file) in pair_up(layout, f"{name}, {group}", clean, wet).items():
                layout.units.append(Unit(split, PAIR, key, clean_file, wet_file, key[:3], group=group))
    for name in REAL:
        folder = find_folder(source, name)
        if folder is not None:
            files = len(audio_below(folder))
            layout.notes.append(f"{name}: {files:,} real recordings without clean reference are not in the manifest")
    return layout


def _files(root: Path, names: tuple[str, ...], layout: Layout) -> dict[str, Path]:
    """First channel of every recording in the first of `names` that is there, by its name without channel."""
    folder = find_folder(root / "data", *names)
    if folder is None:
        layout.faults.append(f"the folder {root.name}/data/{names[0]} is missing")
        return {}
    matched = ((path, re.fullmatch(r"(.+?)(?:_ch(\d+))?", path.stem)) for path in audio_below(folder))
    files = {found[1]: path for path, found in matched if found and found[2] in (None, "1")}
    expected = TRAINING_FILES if names[0].startswith("mc_train") else None
    count(layout, f"{root.name}/data/{folder.name}", len(files), expected)
    return files


CORPUS = Corpus(
    name="reverb",
    title="REVERB challenge",
    page="https://reverb2014.audiolabs-erlangen.de",
    licence="WSJCAM0 and MC-WSJ-AV by the Linguistic Data Consortium, to its licensees",
    scan=scan,
    align=True,
)
