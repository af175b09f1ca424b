"""VoiceBank-DEMAND, 28 speakers: pairs at 48 kHz, the training and test material of most published results.

Layout of the archive (Valentini-Botinhao 2017, doi 10.7488/ds/2117): {clean,noisy}_trainset_28spk_wav,
{clean,noisy}_testset_wav, trainset_28spk_txt, testset_txt; files are named SPEAKER_NUMBER.
"""

from __future__ import annotations

from pathlib import Path

from semamba.data.corpora.layout import PAIR, Corpus, Layout, Unit, Wishes, find_folder, held_out, need_folder, pair_up

SETS = {"train": ("trainset_28spk_wav", 11572, "trainset_28spk_txt"), "test": ("testset_wav", 824, "testset_txt")}
VALID_SPEAKERS = ("p286", "p287")


def scan(source: Path, wishes: Wishes) -> Layout:
    layout = Layout()
    for split, (folder, expected, texts) in SETS.items():
        sides = []
        for side in ("clean", "noisy"):
            files = need_folder(source, f"{side}_{folder}", layout, expected)
            sides.append({path.stem: path for path in files})
        pairs = pair_up(layout, split, *sides)
        speakers = {_speaker(name) for name in pairs}
        valid = held_out(speakers, wishes, VALID_SPEAKERS) if split == "train" and pairs else set()
        if missing := sorted(valid - speakers):
            layout.faults.append(f"no files of the validation speaker {missing[0]} in clean_{folder}")
        spoken = find_folder(source, texts)
        for name, (clean, noisy) in pairs.items():
            speaker = _speaker(name)
            place = "valid" if speaker in valid else split
            layout.units.append(Unit(place, PAIR, name, clean, noisy, speaker, _text(spoken, name)))
    return layout


def _speaker(name: str) -> str:
    return name.split("_")[0]


def _text(folder: Path | None, name: str) -> str:
    path = folder / f"{name}.txt" if folder else None
    return " ".join(path.read_text(encoding="utf-8", errors="replace").split()) if path and path.is_file() else ""


CORPUS = Corpus(
    name="voicebank-demand",
    title="VoiceBank-DEMAND",
    page="https://datashare.ed.ac.uk/handle/10283/2791",
    licence="license_text of the archive, doi 10.7488/ds/2117",
    scan=scan,
)
