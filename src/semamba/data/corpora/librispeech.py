"""LibriSpeech (Panayotov et al. 2015): read English at 16 kHz with transcripts, SUBSET/SPEAKER/CHAPTER/*.flac."""

from __future__ import annotations

from pathlib import Path

from semamba.data.corpora.layout import Corpus, Layout, Unit, Wishes, audio_below, count, find_folder, held_out

# Utterances of each subset, and the split that its name stands for.
SUBSETS = {
    "train-clean-100": ("train", 28539),
    "train-clean-360": ("train", 104014),
    "train-other-500": ("train", 148688),
    "dev-clean": ("valid", 2703),
    "dev-other": ("valid", 2864),
    "test-clean": ("test", 2620),
    "test-other": ("test", 2939),
}
VALID_SHARE = 0.02  # of the training speakers, where no dev subset is there


def scan(source: Path, wishes: Wishes) -> Layout:
    layout = Layout()
    for subset, (split, expected) in SUBSETS.items():
        folder = find_folder(source, subset)
        if folder is None:
            continue
        files = audio_below(folder)
        count(layout, subset, len(files), expected)
        texts = _transcripts(folder)
        lost = sorted(texts.keys() - {path.stem for path in files})
        if lost and len(files) >= expected:
            layout.faults.append(f"{subset}: {lost[0]} and {len(lost) - 1} more have a transcript but no audio")
        for path in files:
            speaker = path.stem.split("-")[0]
            layout.units.append(Unit(split, "speech", path.stem, path, None, speaker, texts.get(path.stem, "")))
    if not layout.units:
        layout.faults.append(f"none of the folders {', '.join(SUBSETS)} is there")
    _hold_out(layout, wishes)
    return layout


def _hold_out(layout: Layout, wishes: Wishes) -> None:
    """Without a dev subset, or when asked to, some training speakers become validation."""
    from dataclasses import replace

    asked = wishes.valid_speakers is not None or wishes.valid_share is not None
    if any(unit.split == "valid" for unit in layout.units) and not asked:
        return
    if wishes.valid_share is None and wishes.valid_speakers is None:
        wishes = Wishes(valid_share=VALID_SHARE)
    speakers = {unit.speaker for unit in layout.units if unit.split == "train"}
    valid = held_out(speakers, wishes, ())
    layout.units = [
        replace(unit, split="valid") if unit.split == "train" and unit.speaker in valid else unit
        for unit in layout.units
    ]


def _transcripts(folder: Path) -> dict[str, str]:
    """Utterance -> text, from the lines `UTTERANCE WORDS` of all *.trans.txt."""
    texts = {}
    for path in folder.rglob("*.trans.txt"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            utterance, _, words = line.strip().partition(" ")
            texts[utterance] = words
    return texts


CORPUS = Corpus(
    name="librispeech",
    title="LibriSpeech",
    page="https://www.openslr.org/12",
    licence="CC BY 4.0",
    scan=scan,
)
