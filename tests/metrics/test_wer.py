"""Word errors: counted right, summed over the corpus, nothing missing averaged in."""

from __future__ import annotations

import numpy as np
import pytest

from semamba.errors import SemambaError
from semamba.metrics import wer
from semamba.metrics.evaluate import Scored

pytest.importorskip("jiwer")
pytest.importorskip("whisper_normalizer")


def test_operations_are_counted() -> None:
    found = wer.compare("the cat sat on the mat", "a cat sat on the red mat today")
    assert (found.words.substitutions, found.words.deletions, found.words.insertions) == (1, 0, 2)
    assert found.words.length == 6 and found.words.rate == pytest.approx(0.5)
    assert found.characters.length == len("the cat sat on the mat")


def test_spelling_is_not_an_error() -> None:
    assert wer.compare("Mr. Jones won't pay twenty dollars", "mister jones will not pay $20").words.total == 0
    assert wer.compare("COLOUR", "color").words.total == 0


def test_nothing_heard_is_all_deleted() -> None:
    found = wer.compare("one more word", "")
    assert found.words.deletions == found.words.length and found.words.rate == 1


def test_a_reference_without_words_is_refused() -> None:
    with pytest.raises(SemambaError, match="no words"):
        wer.compare(" ... ", "hello")


def test_corpus_rate_is_a_ratio_of_sums() -> None:
    scored = [Scored("a/x.wav", heard="red"), Scored("y.flac", heard="red green blue black white")]
    found = wer.recognition(scored, {"x": "blue", "y": "red green blue black white"})
    assert found.corpus().rate == pytest.approx(1 / 6)
    low, high = found.interval() or (0.0, 0.0)
    assert low == 0 and high == 1  # both files may be drawn twice
    assert found.document()["wer"] == pytest.approx(1 / 6) and found.document()["count"] == 2


def test_what_is_missing_is_named_and_left_out() -> None:
    scored = [
        Scored("x.wav", heard="red"),
        Scored("silent.wav", problems={"file": "is silent"}),
        Scored("unknown.wav", heard="red"),
        Scored("mute.wav", heard="red"),
    ]
    found = wer.recognition(scored, {"x": "red", "silent": "red", "mute": "..."})
    assert set(found.files) == {"x.wav"} and found.interval() is None
    assert found.left_out == {
        "silent.wav": "is silent",
        "unknown.wav": "no transcript of this name",
        "mute.wav": "its transcript has no words",
    }
    empty = wer.recognition([], {})
    assert empty.document()["wer"] is None and empty.document()["count"] == 0


def test_the_interval_agrees_with_theory() -> None:
    """Files of 10 words with one error in half of them: the mean has a standard error of 0.05 / sqrt(n)."""
    words = ["one", "red", "two", "green", "blue", "black", "white", "cold", "warm", "dry"]
    said = " ".join(words)
    scored = [Scored(f"{i}.wav", heard=said if i % 2 else " ".join(words[1:])) for i in range(100)]
    low, high = wer.recognition(scored, {str(i): said for i in range(100)}).interval() or (0.0, 0.0)
    assert np.allclose([low, high], [0.05 - 1.96 * 0.005, 0.05 + 1.96 * 0.005], atol=0.002)


def test_a_whole_name_comes_before_its_end() -> None:
    scored = [Scored("p1/001.wav", heard="one word"), Scored("p2/001.wav", heard="one word")]
    found = wer.recognition(scored, {"p1/001.wav": "one word", "001": "two words"})
    assert [file.reference for file in found.files.values()] == ["one word", "2 words"]
