"""Word and character error rates of what a recogniser heard; the only file that imports jiwer (extra `asr`).

Both texts pass the English normaliser that Whisper's figures are published with (Radford et al. 2022, appendix C;
package `whisper_normalizer`). A corpus rate is the sum of all errors over the sum of all reference words, not a mean
of rates; its interval comes from drawing files with replacement (1,000 times, 2.5% to 97.5%).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from semamba.errors import SemambaError
from semamba.metrics.evaluate import Scored

DRAWS = 1000


@dataclass(frozen=True)
class Errors:
    """Edit operations from reference to hypothesis, in words or characters; `length` counts the reference."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors for each unit of the reference: 0 is perfect, may exceed 1."""
        return self.total / self.length


@dataclass(frozen=True)
class FileErrors:
    """One file: normalised texts, errors in words and characters."""

    reference: str
    heard: str
    words: Errors
    characters: Errors


@dataclass(frozen=True)
class Recognition:
    """Errors of one system: files by name, and what was left out with the reason."""

    files: dict[str, FileErrors]
    left_out: dict[str, str] = field(default_factory=dict)

    def corpus(self, unit: str = "words") -> Errors:
        """Sum over the files; `unit` is 'words' or 'characters'."""
        rows = np.array([_row(getattr(file, unit)) for file in self.files.values()]).reshape(-1, 4)
        return Errors(*(int(value) for value in rows.sum(0)))

    def interval(self, unit: str = "words") -> tuple[float, float] | None:
        """95% interval of the corpus rate; None below two files."""
        if len(self.files) < 2:
            return None
        rows = np.array([_row(getattr(file, unit)) for file in self.files.values()])
        errors, lengths = rows[:, :3].sum(1), rows[:, 3]
        draw = np.random.default_rng(0).integers(len(rows), size=(DRAWS, len(rows)))
        low, high = np.percentile(errors[draw].sum(1) / lengths[draw].sum(1), [2.5, 97.5])
        return float(low), float(high)

    def document(self) -> dict[str, Any]:
        """JSON-able: corpus rates with counts and intervals, every file, what was left out."""
        content: dict[str, Any] = {"count": len(self.files)}
        for key, unit in (("wer", "words"), ("cer", "characters")):
            total = self.corpus(unit)
            content[key] = total.rate if self.files else None
            content[f"{key}_interval"] = self.interval(unit)
            content[unit] = asdict(total)
        content["files"] = {
            name: {"wer": file.words.rate, "cer": file.characters.rate} | asdict(file)
            for name, file in self.files.items()
        }
        return content | {"left_out": self.left_out}


def recognition(scored: Sequence[Scored], transcripts: Mapping[str, str]) -> Recognition:
    """Errors of every file that was heard; transcripts are found by name, or by name without folder and suffix."""
    files, left_out = {}, {}
    for result in scored:
        reference = transcripts.get(result.name, transcripts.get(Path(result.name).stem))
        if result.heard is None:
            left_out[result.name] = next(iter(result.problems.values()), "was not given to the recogniser")
        elif reference is None:
            left_out[result.name] = "no transcript of this name"
        elif not normalise(reference):
            left_out[result.name] = "its transcript has no words"
        else:
            files[result.name] = compare(reference, result.heard)
    return Recognition(files, left_out)


def compare(reference: str, heard: str) -> FileErrors:
    """Errors between two texts after normalisation. Raises SemambaError when the reference has no words."""
    import jiwer

    reference, heard = normalise(reference), normalise(heard)
    if not reference:
        raise SemambaError("the reference text has no words")
    words, characters = jiwer.process_words(reference, heard), jiwer.process_characters(reference, heard)
    return FileErrors(reference, heard, _errors(words), _errors(characters))


def normalise(text: str) -> str:
    """Lower case, no punctuation, one spelling, contractions and numbers written alike."""
    words = str(_normaliser()(text)).split()
    return " ".join(word for word in words if any(letter.isalnum() for letter in word))  # it leaves "..." as "."


def require_extra() -> None:
    """Raise SemambaError with the install command when a library is missing."""
    try:
        import jiwer  # noqa: F401
    except ImportError:
        raise SemambaError("word error rates need jiwer: pip install 'semamba[asr]'") from None
    _normaliser()


@cache
def _normaliser() -> Any:
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise SemambaError("word error rates need whisper-normalizer: pip install 'semamba[asr]'") from None
    return EnglishTextNormalizer()


def _errors(output: Any) -> Errors:
    found = (output.substitutions, output.deletions, output.insertions)
    return Errors(*found, length=output.hits + output.substitutions + output.deletions)


def _row(errors: Errors) -> tuple[int, int, int, int]:
    return errors.substitutions, errors.deletions, errors.insertions, errors.length
