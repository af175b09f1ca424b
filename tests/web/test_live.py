"""WS /v1/stream: as many samples out as in, a fixed time late; what is wrong is said before the line closes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import semamba
from semamba.web import live
from tests.web.serving import Running, noisy, settled


def hello(socket: ClientConnection, **content: Any) -> dict[str, Any]:
    socket.send(json.dumps(content))
    reply: dict[str, Any] = json.loads(socket.recv(timeout=30))
    return reply


def talk(server: Running, wave: np.ndarray, block: int, **content: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """(all samples that came back, the last message)."""
    narrow = content.get("format") == "pcm16"
    with connect(server.socket) as socket:
        ready = hello(socket, channels=wave.shape[0], **content)
        assert ready["type"] == "ready", ready
        for start in range(0, wave.shape[1], block):
            piece = wave[:, start : start + block].T
            socket.send((np.rint(piece * 32768).astype("<i2") if narrow else piece.astype("<f4")).tobytes())
        socket.send('{"type": "end"}')
        parts: list[bytes] = []
        while isinstance(message := socket.recv(timeout=30), bytes):
            parts.append(message)
    flat = np.frombuffer(b"".join(parts), "<i2" if narrow else "<f4")
    result = flat.reshape(-1, wave.shape[0]).T / (32768 if narrow else 1)
    return result, {**ready, **json.loads(message)}


@pytest.mark.parametrize(
    ("rate", "channels", "block", "format"),
    [(16_000, 1, 333, "float32"), (48_000, 2, 960, "float32"), (16_000, 1, 320, "pcm16")],
)
def test_the_enhanced_sound_comes_back_late(server: Running, rate: int, channels: int, block: int, format: str) -> None:
    wave = noisy(1.2, rate, channels)
    result, last = talk(server, wave, block, rate=rate, format=format)
    late = last["latency_samples"]
    assert last["type"] == "end" and last["received"] == wave.shape[1]
    assert last["samples"] == result.shape[1] == wave.shape[1] + late
    expected = semamba.enhance(wave, rate, bandwidth="model")
    np.testing.assert_allclose(result[:, late:], expected, atol=1e-3)


def test_options_are_heard(server: Running) -> None:
    wave = noisy(0.5)
    result, last = talk(server, wave, 320, rate=16_000, format="float32", options={"mix": 0})
    np.testing.assert_allclose(result[:, last["latency_samples"] :], wave, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "about"),
    [
        ({"rate": "high"}, "rate"),
        ({"rate": 100}, "rate"),
        ({"rate": 10**9}, "rate"),
        ({"rate": 16_000, "channels": 0}, "channels"),
        ({"rate": 16_000, "channels": True}, "channels"),
        ({"rate": 16_000, "format": "mp3"}, "format"),
        ({"rate": 16_000, "model": "../../etc"}, "model"),
        ({"rate": 16_000, "model": 7}, "model"),
        ({"rate": 16_000, "options": {"mix": 7}}, "mix"),
        ({"rate": 16_000, "options": {"pcs": True}}, "options"),
        ({"rate": 16_000, "options": []}, None),
        ({"rate": 16_000, "pitch": 2}, "pitch"),
    ],
)
def test_a_wrong_hello_is_answered_in_words(server: Running, content: dict[str, Any], about: str | None) -> None:
    with connect(server.socket) as socket:
        reply = hello(socket, **content)
        if about is None:  # an empty list is as good as no options
            assert reply["type"] == "ready"
            return
        assert reply["type"] == "error" and about in reply["error"]
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=10)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1007


@pytest.mark.parametrize("first", ["nonsense", "[1]", b"\x00\x01"])
def test_no_hello_at_all(server: Running, first: str | bytes) -> None:
    with connect(server.socket) as socket:
        socket.send(first)
        assert "JSON" in json.loads(socket.recv(timeout=10))["error"]


@pytest.mark.parametrize(
    ("message", "about"), [(b"123", "whole samples"), ('{"type": "dance"}', "end"), ("nonsense", "JSON")]
)
def test_what_is_no_sound(server: Running, message: str | bytes, about: str) -> None:
    with connect(server.socket) as socket:
        assert hello(socket, rate=16_000)["type"] == "ready"
        socket.send(message)
        assert about in json.loads(socket.recv(timeout=10))["error"]


def test_a_message_that_is_too_large(server: Running) -> None:
    with connect(server.socket) as socket:
        hello(socket, rate=16_000)
        with pytest.raises(ConnectionClosed) as caught:
            socket.send(bytes(3_000_000))
            socket.recv(timeout=10)
        assert caught.value.rcvd is None or caught.value.rcvd.code == 1009


def test_nothing_that_is_not_finite_comes_back(server: Running) -> None:
    wave = noisy(0.5)
    wave[0, 1000] = np.nan
    wave[0, 2000] = np.inf
    result, _ = talk(server, wave, 500, rate=16_000, format="float32")
    assert np.isfinite(result).all() and np.abs(result).max() < 2


def test_a_client_that_vanishes_gives_its_place_back(server: Running) -> None:
    with connect(server.socket) as socket:
        hello(socket, rate=16_000)
        socket.send(bytes(6400))
        assert server.shop.live.count == 1
        socket.socket.close()
    assert settled(lambda: server.shop.live.count == 0)


def test_too_many_streams(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STREAMS", 1)
    with connect(server.socket) as first:
        hello(first, rate=16_000)
        with connect(server.socket) as second:
            assert "later" in hello(second, rate=16_000)["error"]
            with pytest.raises(ConnectionClosed) as caught:
                second.recv(timeout=10)
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1013


def test_those_who_say_nothing_hold_no_place(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STREAMS", 1)
    with connect(server.socket), connect(server.socket), connect(server.socket) as third:
        assert hello(third, rate=16_000)["type"] == "ready" and server.shop.live.count == 1


def test_silence_on_the_line_ends_it(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HELLO_SECONDS", 0.3)
    with connect(server.socket) as socket:
        assert "hello" in json.loads(socket.recv(timeout=10))["error"]
    monkeypatch.setattr(live, "HELLO_SECONDS", 20)
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.3)
    with connect(server.socket) as socket:
        hello(socket, rate=16_000)
        assert "no sound" in json.loads(socket.recv(timeout=10))["error"]


def test_limit_and_bandwidth_are_heard(server: Running) -> None:
    wave, options = noisy(0.5, 48_000), {"attenuation_limit": 6, "bandwidth": "full"}
    result, last = talk(server, wave, 480, rate=48_000, format="float32", options=options)
    expected = semamba.enhance(wave, 48_000, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(result[:, last["latency_samples"] :], expected, atol=1e-3)
