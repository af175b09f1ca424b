"""Where sound is missing inside a track, told from the times of its decoded frames."""

from __future__ import annotations

from typing import Any

_GAP = 0.02  # seconds without sound that are more than inexact times
_LONGEST_GAP = 600.0  # seconds; more is a broken time


class Clock:
    """Compares the times of decoded frames with the sound so far, to find where sound is missing."""

    def __init__(self, stated: float) -> None:
        self._room = stated  # seconds of sound that the file says to hold; silence does not make it longer
        self._end: float | None = None  # of the frame before
        self._filled = 0.0  # time of the next sample, counted from the first frame on

    def gap(self, frame: Any, following: Any) -> float:
        """Seconds of silence that belong before this frame.

        Only a jump counts that the next frame confirms and that the samples so far have not made up for: times that
        drift, jitter or are wrong once leave the sound as it is.
        """
        length = frame.samples / frame.sample_rate
        time = _time(frame, self._end or 0.0)
        if self._end is None:
            self._end = self._filled = time
        gap = min(time - self._end, time - self._filled)
        steady = following is not None and abs(_time(following, time + length) - time - length) <= _GAP
        if not (steady and _GAP < gap <= min(_LONGEST_GAP, self._room)):
            gap = 0.0
        self._end = time + length
        self._filled += gap + length
        self._room -= gap + length
        return gap


def _time(frame: Any, otherwise: float) -> float:
    return otherwise if frame.pts is None else float(frame.pts * frame.time_base)
