"""Microphone to loudspeaker through PortAudio: the only file that knows sounddevice.

Letters: C channels, k samples of a block.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from semamba.errors import SemambaError
from semamba.inference.duplex import Duplex

_LOOK_SECONDS = 0.05  # between two looks at a stream that runs
_RETRY_SECONDS = 1.0  # between two tries to get a device back
_SILENT_SECONDS = 3.0  # without a block, after which a device counts as gone


class DeviceError(SemambaError):
    """A device cannot be opened, or is gone."""


@dataclass(frozen=True)
class Device:
    """What the system says about one sound device."""

    index: int
    name: str
    system: str  # "ALSA", "Core Audio", "Windows WASAPI", ...
    inputs: int  # channels
    outputs: int
    sample_rate: int  # Hz, its own
    default: str  # "", "input", "output" or "input, output"


def devices() -> list[Device]:
    """Every device there is. Raises SemambaError when sounddevice or PortAudio is missing."""
    sound = _library()
    try:
        systems = [system["name"] for system in sound.query_hostapis()]
        found = list(sound.query_devices())
        chosen = [int(index) for index in sound.default.device]
    except sound.PortAudioError as error:
        raise DeviceError(f"the sound system does not answer: {_reason(error)}") from None
    sides = ("input", "output")
    return [
        Device(
            index,
            entry["name"],
            systems[entry["hostapi"]],
            entry["max_input_channels"],
            entry["max_output_channels"],
            round(entry["default_samplerate"]),
            ", ".join(side for side, other in zip(sides, chosen, strict=True) if other == index),
        )
        for index, entry in enumerate(found)
    ]


def choose(found: list[Device], side: str, wanted: str | None = None) -> Device:
    """The device for `side`, "input" or "output": by its number, a part of its name, or the system's own choice.

    Raises SemambaError naming what there is.
    """
    usable = [device for device in found if (device.inputs if side == "input" else device.outputs) > 0]
    if not usable:
        thing = "microphone" if side == "input" else "loudspeaker"
        raise DeviceError(f"this machine has no {side} device: connect a {thing}, see semamba live --list")
    if wanted is None:
        return next((device for device in usable if side in device.default), usable[0])
    if wanted.isdigit():
        matching = [device for device in usable if device.index == int(wanted)]
    else:
        matching = [device for device in usable if wanted.lower() in device.name.lower()]
        matching = [device for device in matching if device.name == wanted] or matching
    if not matching:
        raise DeviceError(f"no {side} device is called '{wanted}'; semamba live --list shows all")
    if len(matching) > 1:
        names = ", ".join(f"{device.index} ({device.name}, {device.system})" for device in matching)
        raise DeviceError(f"'{wanted}' fits several {side} devices: {names}; give the number")
    return matching[0]


class Session:
    """Sound from one device through a Duplex to another, until told to stop; a device that goes away may come back."""

    def __init__(self, duplex: Duplex, source: Device, target: Device, sample_rate: int, channels: int = 1) -> None:
        self._duplex, self._source, self._target = duplex, source, target
        self.sample_rate, self._channels = sample_rate, channels
        self._outputs = max(channels, min(2, target.outputs))
        self._sound = _library()
        self._heard = 0.0  # when the last block came
        self.glitches = 0  # times the sound system says that it lost or missed something
        self.device_latency = 0.0  # seconds that the devices add, as they say
        self.trouble = ""  # what is wrong just now

    def run(self, stop: Callable[[], bool], look: Callable[[], None] = lambda: None) -> None:
        """Until `stop()`; `look` is called some times a second. Raises SemambaError when the devices never opened."""
        opened = False
        while not stop():
            try:
                stream = self._open()
            except DeviceError as error:
                if not opened:
                    raise
                self.trouble = f"{error}; trying again"
                self._wait(_RETRY_SECONDS, stop, look)
                self._refresh()
                continue
            opened, self.trouble = True, ""
            try:
                while not stop() and self._alive(stream):
                    look()
                    self._check()
                    time.sleep(_LOOK_SECONDS)
            finally:
                _close(stream)
            if not stop():
                self.trouble = f"'{self._source.name}' or '{self._target.name}' is gone; trying again"
                self._wait(_RETRY_SECONDS, stop, look)
                self._refresh()

    def _open(self) -> Any:
        duplex, channels, outputs = self._duplex, self._channels, self._outputs

        def callback(indata: Any, outdata: Any, frames: int, clock: Any, status: Any) -> None:
            self._heard = time.monotonic()
            if status:
                self.glitches += 1
            result = duplex.exchange(indata.T).T  # (k, C)
            outdata[:] = result if outputs == channels else np.broadcast_to(result[:, :1], outdata.shape)

        duplex.restart()
        stream = None
        try:
            stream = self._sound.Stream(
                samplerate=self.sample_rate,
                blocksize=duplex.block,
                device=(self._source.index, self._target.index),
                channels=(channels, outputs),
                dtype="float32",
                latency="low",
                callback=callback,
            )
            self._heard = time.monotonic()
            stream.start()
        except (self._sound.PortAudioError, ValueError, OSError) as error:
            if stream is not None:
                _close(stream)
            names = f"'{self._source.name}' and '{self._target.name}' at {self.sample_rate} Hz"
            raise DeviceError(f"cannot open {names}: {_reason(error)}") from None
        self.device_latency = float(sum(stream.latency))
        return stream

    def _alive(self, stream: Any) -> bool:
        return bool(stream.active) and time.monotonic() - self._heard < _SILENT_SECONDS

    def _check(self) -> None:
        if self._duplex.error is not None:
            raise self._duplex.error

    def _wait(self, seconds: float, stop: Callable[[], bool], look: Callable[[], None]) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not stop():
            look()
            time.sleep(_LOOK_SECONDS)

    def _refresh(self) -> None:
        """PortAudio sees what was plugged in only after a new start; the same names may have other numbers then."""
        try:
            self._sound._terminate()
            self._sound._initialize()
            found = devices()
            self._source = choose(found, "input", self._source.name)
            self._target = choose(found, "output", self._target.name)
        except (SemambaError, self._sound.PortAudioError):
            return  # opening will say what is wrong


def _library() -> Any:
    """sounddevice, or one line on what to install."""
    try:
        import sounddevice
    except ImportError:
        raise SemambaError("live sound needs the package sounddevice: pip install 'semamba[live]'") from None
    except OSError:
        raise SemambaError(
            "live sound needs the system library PortAudio: apt install libportaudio2 (Debian, Ubuntu), "
            "dnf install portaudio (Fedora), pacman -S portaudio (Arch), brew install portaudio (macOS)"
        ) from None
    return sounddevice


def _close(stream: Any) -> None:
    """A device that is gone may complain at its end: nobody needs to hear."""
    try:
        stream.abort()
        stream.close()
    except Exception:
        return


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
