"""A sound system without sound: a module in place of sounddevice, whose streams are driven by a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class PortAudioError(Exception):
    pass


class FakeStream:
    def __init__(self, sound: FakeSound, **settings: Any) -> None:
        self.sound, self.settings = sound, settings
        self.active, self.latency = False, (0.010, 0.020)
        self._thread = threading.Thread(target=self._pump, daemon=True)
        sound.opened.append(self)
        if sound.refusals:
            raise PortAudioError(sound.refusals.pop(0))

    def start(self) -> None:
        self.active = True
        self._thread.start()

    def abort(self) -> None:
        self.active = False

    def close(self) -> None:
        self.active = False
        self._thread.join()

    def _pump(self) -> None:
        block, (inputs, outputs) = self.settings["blocksize"], self.settings["channels"]
        while self.active:
            noisy = self.sound.source(block * inputs).reshape(block, inputs).astype(np.float32)
            out = np.full((block, outputs), np.nan, np.float32)
            self.settings["callback"](noisy, out, block, None, self.sound.status)
            self.sound.heard.append(out)
            if self.sound.unplug_after is not None and len(self.sound.heard) >= self.sound.unplug_after:
                self.sound.unplug_after = None
                self.active = False  # as PortAudio does when a device is pulled out
            time.sleep(self.sound.pause)


class FakeSound(ModuleType):
    PortAudioError = PortAudioError

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.default = SimpleNamespace(device=[0, 1])
        self.entries = [
            entry("USB microphone", 1, 0, 16_000.0),
            entry("Built-in speakers", 0, 2, 48_000.0),
            entry("Headset", 1, 2, 48_000.0),
            entry("Headset of another", 1, 0, 44_100.0),
        ]
        self.opened: list[FakeStream] = []
        self.heard: list[np.ndarray] = []  # (k, outputs) of each callback
        self.refusals: list[str] = []  # reasons why streams to come cannot be opened
        self.unplug_after: int | None = None  # blocks
        self.starts, self.pause, self.status = 0, 0.002, None
        rng = np.random.default_rng(0)
        self.source: Callable[[int], np.ndarray] = lambda count: 0.1 * rng.standard_normal(count)

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": "Fake"}]

    def query_devices(self) -> list[dict[str, Any]]:
        return self.entries

    def Stream(self, **settings: Any) -> FakeStream:
        return FakeStream(self, **settings)

    def _terminate(self) -> None:
        self.starts -= 1

    def _initialize(self) -> None:
        self.starts += 1


def entry(name: str, inputs: int, outputs: int, rate: float) -> dict[str, Any]:
    return {
        "name": name,
        "hostapi": 0,
        "max_input_channels": inputs,
        "max_output_channels": outputs,
        "default_samplerate": rate,
    }
