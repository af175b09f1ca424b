"""POST /v1/enhance: the same result as the command line, limits in words, nothing left behind."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

import semamba
from semamba.inference.engine import Engine
from semamba.web.gate import Gate
from semamba.web.settings import Settings
from tests.web.serving import Running, encode, noisy, running, settled


def post(client: httpx.Client, content: bytes, name: str = "talk.wav", **fields: object) -> httpx.Response:
    data = {key: str(value) for key, value in fields.items()}
    return client.post("/v1/enhance", files={"file": (name, content)}, data=data)


def words(answer: httpx.Response) -> str:
    """The error of an answer; names nothing of this machine."""
    assert answer.headers["content-type"].startswith("application/json")
    text = answer.json()["error"]
    assert "/tmp" not in text and "upload-" not in text and "input." not in text
    return str(text)


def samples(answer: httpx.Response) -> tuple[np.ndarray, int]:
    assert answer.status_code == 200, answer.text
    wave, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32", always_2d=True)
    return wave.T, rate


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2), (8000, 1)])
def test_same_result_as_in_python(client: httpx.Client, server: Running, rate: int, channels: int) -> None:
    wave = noisy(0.8, rate, channels)
    expected = semamba.enhance(wave, rate, attenuation_limit=15.0, mix=0.9)
    answer = post(client, encode(wave, rate, subtype="FLOAT"), attenuation_limit=15, mix=0.9)
    result, rate_out = samples(answer)
    assert rate_out == rate and result.shape == wave.shape
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert not server.left_behind()


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "PCM_24"])
def test_streamed_is_the_same_as_whole(client: httpx.Client, subtype: str) -> None:
    content = encode(noisy(3.3, 22_050), 22_050, subtype=subtype)
    whole, _ = samples(post(client, content))
    answer = post(client, content, stream="true")
    streamed, rate = samples(answer)
    assert rate == 22_050 and int(answer.headers["content-length"]) == len(answer.content)
    np.testing.assert_allclose(streamed, whole, atol=2 / 32768)


def test_streaming_begins_before_the_end(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of the work waits until the client has the first piece of the answer."""
    received, in_time, finish = threading.Event(), [], Engine.finish
    monkeypatch.setattr(Engine, "finish", lambda self: in_time.append(received.wait(20)) or finish(self))
    content = encode(noisy(5))
    form = {"files": {"file": ("a.wav", content)}, "data": {"stream": "true"}}
    with httpx.Client(timeout=60) as client, client.stream("POST", server.url + "/v1/enhance", **form) as answer:
        pieces = answer.iter_raw()
        size = len(next(pieces))
        received.set()
        size += sum(map(len, pieces))
    assert in_time == [True] and size == len(content)


def test_model_and_bandwidth_are_heard(client: httpx.Client) -> None:
    other = next(row["name"] for row in client.get("/v1/models").json() if not row["default"])
    wave = noisy(0.5, 48_000)
    for fields in ({"model": other}, {"bandwidth": "model"}):
        result, _ = samples(post(client, encode(wave, 48_000, subtype="FLOAT"), **fields))
        np.testing.assert_allclose(result, semamba.enhance(wave, 48_000, **fields), atol=1e-5)
        assert np.abs(result - semamba.enhance(wave, 48_000)).max() > 1e-3


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "mp3", "opus", "aiff"])
def test_formats_out(client: httpx.Client, format: str) -> None:
    rate = 48_000 if format == "opus" else 16_000
    answer = post(client, encode(noisy(0.5, rate), rate), name="talk.x.wav", format=format)
    assert f"talk.x.enhanced.{format}" in answer.headers["content-disposition"]
    wave, rate_out = samples(answer)
    assert rate_out == rate and abs(wave.shape[1] - rate // 2) < 3000


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3", "AIFF", "AU"])
def test_formats_in(client: httpx.Client, format: str) -> None:
    name = f"talk.{format.lower()}"
    answer = post(client, encode(noisy(0.5), format=format), name=name)
    assert f"talk.enhanced.{format.lower()}" in answer.headers["content-disposition"]
    samples(answer)


def test_video_keeps_its_picture(client: httpx.Client, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="video needs: pip install 'semamba[video]'")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        wave = noisy(1.0)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for one in (frame, None):
            container.mux(sound.encode(one))
    answer = post(client, path.read_bytes(), name="clip.mp4")
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    answer = post(client, path.read_bytes(), name="clip.mp4", format="wav")
    assert samples(answer)[0].shape[0] == 1


@pytest.mark.parametrize(
    ("fields", "about"),
    [
        ({"mix": "2"}, "mix"),
        ({"mix": "much"}, "mix"),
        ({"mix": "nan"}, "mix"),
        ({"attenuation_limit": "-1"}, "attenuation"),
        ({"pcs": "perhaps"}, "pcs"),
        ({"format": "exe"}, "format"),
        ({"format": "mp3", "stream": "true"}, "stream"),
        ({"model": "../../../etc"}, "model"),
        ({"model": "/etc/passwd"}, "model"),
        ({"bandwidth": "wide"}, "bandwidth"),
        ({"volume": "11"}, "volume"),
    ],
)
def test_wrong_options_are_named(client: httpx.Client, server: Running, fields: dict[str, str], about: str) -> None:
    answer = post(client, encode(noisy(0.1)), **fields)
    assert answer.status_code == 422 and about in words(answer)
    assert not server.left_behind()


def test_pcs_changes_the_sound(client: httpx.Client) -> None:
    content = encode(noisy(0.5))
    plain, stretched = (samples(post(client, content, pcs=on))[0] for on in ("false", "true"))
    assert np.abs(plain - stretched).max() > 1e-3


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"not sound at all", "a.wav"),
        (b"\0" * 100, "a.flac"),
        (b"ID3" + bytes(200), "a.mp3"),
        (b"\0\0\0\x18ftypM4A ", "a.m4a"),
    ],
)
def test_what_is_no_sound(client: httpx.Client, server: Running, content: bytes, name: str) -> None:
    answer = post(client, content, name=name)
    assert answer.status_code == 415 and words(answer).startswith(name)
    assert not server.left_behind()


def test_damaged_sound_is_told_in_words(client: httpx.Client, server: Running) -> None:
    content = bytearray(encode(noisy(2), format="FLAC"))
    content[len(content) // 2 :] = bytes(len(content) // 2)
    answer = post(client, bytes(content), name="talk.flac")
    assert answer.status_code == 422 and "talk.flac" in words(answer)
    assert not server.left_behind()


def test_too_many_bytes(client: httpx.Client, server: Running) -> None:
    answer = post(client, bytes(1_200_000))
    assert answer.status_code == 413 and "1 MB" in words(answer)

    def chunks() -> object:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(40):
            yield bytes(50_000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    try:  # no length is stated here: the server stops reading on the way
        answer = client.post("/v1/enhance", content=chunks(), headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 413
    except (httpx.WriteError, httpx.ReadError):
        pass  # it closed the line while we were still talking
    assert not server.left_behind()


def bomb(format: str) -> bytes:
    """Ten minutes of silence in a few kilobytes."""
    return encode(np.zeros((1, 600 * 8000), np.float32), 8000, format=format)


def blank_length(flac: bytes) -> bytes:
    """STREAMINFO without the number of samples (36 bits): only decoding tells."""
    return flac[:21] + bytes([flac[21] & 0xF0, 0, 0, 0, 0]) + flac[26:]


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3", "FLAC without length"])
def test_decompression_bombs(client: httpx.Client, server: Running, kind: str, stream: str) -> None:
    content = bomb(kind.split()[0])
    if kind.endswith("length"):
        content = blank_length(content)
    assert len(content) < 1_000_000
    started = time.monotonic()
    answer = post(client, content, name=f"silence.{kind.split()[0].lower()}", stream=stream)
    assert answer.status_code == 413 and "30 s" in words(answer)
    assert time.monotonic() - started < 20
    assert not server.left_behind()


@pytest.mark.parametrize(("channels", "rate"), [(1000, 48_000), (1, 4_000_000_000), (1, 10)])
def test_headers_that_ask_for_memory(client: httpx.Client, server: Running, channels: int, rate: int) -> None:
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * channels * 2) & 0xFFFFFFFF, channels * 2, 16)
    data = bytes(2 * channels * 50)
    content = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + form
    answer = post(client, content + b"data" + struct.pack("<I", len(data)) + data)
    assert answer.status_code in (415, 422)
    words(answer)
    assert not server.left_behind()


STREAM = b'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'


def half_an_upload(server: Running, content: bytes) -> socket.socket:
    """A connection that announced `content` and sent half of it."""
    line, body = announce(server, content)
    line.sendall(body[: len(body) // 2])
    return line


def announce(
    server: Running, content: bytes, fields: bytes = b"", buffer: int | None = None
) -> tuple[socket.socket, bytes]:
    """A connection that has sent the headers of an upload, and the body that belongs to them."""
    address, port = server.url.removeprefix("http://").split(":")
    line = socket.socket()
    if buffer is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    line.connect((address, int(port)))
    body = (
        fields
        + b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + content
        + b"\r\n--x--\r\n"
    )
    head = f"POST /v1/enhance HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    line.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")
    return line, body


def test_a_client_that_leaves_while_sending(server: Running) -> None:
    with half_an_upload(server, encode(noisy(10))):
        assert settled(lambda: server.shop.gate.inside == 1)
    assert not server.left_behind()
    assert server.shop.gate.inside == 0


def test_a_client_that_leaves_while_it_is_worked_on(server: Running) -> None:
    content = encode(noisy(29))
    for fields in (b"", STREAM):
        line, body = announce(server, content, fields)
        with line:
            line.sendall(body)
            assert settled(lambda: any(path.suffix == ".wav" for path in server.shop.folder.rglob("*")))
        assert not server.left_behind()


def test_a_client_that_does_not_read_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = encode(np.zeros((1, 300 * 16_000), np.float32))  # quickly done, and more than buffers hold
    with running(Settings(jobs=1)) as server:
        line, body = announce(server, silence, buffer=4096)
        with line:  # the whole answer is ready: only the sending waits
            line.sendall(body)
            assert settled(lambda: server.shop.gate.inside == 1)
            answer = httpx.post(server.url + "/v1/enhance", files={"file": ("a.wav", encode(noisy(0.1)))}, timeout=60)
            assert answer.status_code == 200 and settled(lambda: server.shop.gate.inside == 1)
        assert settled(lambda: server.shop.gate.inside == 0)
        monkeypatch.setattr("semamba.web.server.SEND_SECONDS", 0.5)
        line, body = announce(server, silence, STREAM, buffer=4096)
        with line:  # an answer in the making: the client is given up
            line.sendall(body)
            assert settled(lambda: server.shop.gate.inside == 1)
            assert settled(lambda: server.shop.gate.inside == 0, 60)
        assert not server.left_behind()


def test_more_work_than_fits_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Settings(jobs=1)) as server:
        server.shop.gate = Gate(1, 0)
        with half_an_upload(server, encode(noisy(1))):
            assert settled(lambda: server.shop.gate.inside == 1)
            answer = httpx.post(server.url + "/v1/enhance", files={"file": ("a.wav", encode(noisy(0.1)))})
        assert answer.status_code == 429 and "try again" in words(answer)
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert settled(lambda: server.shop.gate.inside == 0)
        answer = httpx.post(server.url + "/v1/enhance", files={"file": ("a.wav", encode(noisy(0.1)))}, timeout=60)
        assert answer.status_code == 200


def test_the_loop_answers_while_a_file_is_worked_on(server: Running) -> None:
    content = encode(noisy(29))
    worker = threading.Thread(
        target=lambda: httpx.post(server.url + "/v1/enhance", files={"file": ("a.wav", content)}, timeout=60)
    )
    worker.start()
    assert settled(lambda: server.shop.gate.inside == 1)
    waits = []
    while worker.is_alive():
        started = time.monotonic()
        assert httpx.get(server.url + "/healthz").json()["status"] == "ok"
        waits.append(time.monotonic() - started)
    worker.join()
    assert len(waits) >= 2 and np.median(waits) < 0.5


def test_weights_are_given_and_nothing_else(client: httpx.Client) -> None:
    row = client.get("/v1/models").json()[0]
    assert row["default"] and row["live"] and row["browser"]
    weights = client.get(f"/models/{row['name']}/model.safetensors")
    assert weights.status_code == 200 and len(weights.content) == row["bytes"]
    assert client.get(f"/models/{row['name']}/config.json").json()["model"]["kind"] == row["kind"]
    for path in ("card.md", "..%2f..%2fcheckpoint.py", "%2e%2e/__init__.py", "config.json/..", "config.json%00"):
        answer = client.get(f"/models/{row['name']}/{path}")
        assert answer.status_code in (403, 404), path
    assert client.get("/static/../server.py").status_code == 404
    assert client.get("/static/%2e%2e/server.py").status_code == 404
