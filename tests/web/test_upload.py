"""Multipart bodies, as browsers, curl and those with other plans send them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semamba.web import upload
from semamba.web.settings import ProblemError
from semamba.web.upload import Upload, clean_name, receive_upload
from tests.web.serving import encode, noisy

BOUNDARY = "frontier"
WAV = encode(noisy(0.05))


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    extra = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
    return head.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def receive(body: bytes, folder: Path, size: int = 1 << 16, limit: int = 10**6, **headers: str) -> Upload:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    given = {"content-type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    return asyncio.run(receive_upload(given, chunks(), folder, limit))


def status(body: bytes, folder: Path, **more: object) -> int:
    with pytest.raises(ProblemError) as caught:
        receive(body, folder, **more)  # type: ignore[arg-type]
    return caught.value.status


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_however_it_is_cut(size: int, tmp_path: Path) -> None:
    body = part("mix", b"0.5") + part("file", WAV, "talk.wav") + part("pcs", b"true") + END
    got = receive(body, tmp_path, size)
    assert got.fields == {"mix": "0.5", "pcs": "true"} and got.name == "talk.wav"
    assert got.path.read_bytes() == WAV and got.path.suffix == ".wav"


def test_too_much_is_noticed_while_it_arrives(tmp_path: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield part("file", b"", "a.wav")[:-2]
        while True:
            sent += 1000
            yield bytes(1000)

    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    with pytest.raises(ProblemError, match="larger than") as caught:
        asyncio.run(receive_upload(headers, endless(), tmp_path, 50_000))
    assert caught.value.status == 413 and sent <= 52_000
    assert (tmp_path / "upload").stat().st_size <= 50_000


@pytest.mark.parametrize("pause", [0.0005, 60.0])
def test_a_body_that_stands_still_or_trickles(pause: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_PATIENCE", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield part("file", b"", "a.wav")[:-2]
        while True:
            await asyncio.sleep(pause)
            yield b"x" * round(200 * pause)  # a tenth of what is asked for

    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    with pytest.raises(ProblemError, match="too slowly") as caught:
        asyncio.run(receive_upload(headers, slow(), tmp_path, 50_000))
    assert caught.value.status == 408


def test_a_stated_length_is_enough_to_refuse(tmp_path: Path) -> None:
    body = part("file", WAV, "a.wav") + END
    assert status(body, tmp_path, **{"content-length": "99999999"}) == 413
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"nonsense", 400),
        (END, 422),
        (part("mix", b"1") + END, 422),  # no file
        (part("file", b"", "a.wav") + END, 422),  # an empty one
        (part("file", WAV, "a.wav"), 400),  # cut off
        (part("file", WAV, "a.wav") + part("file", WAV, "b.wav") + END, 422),
        (part("mix", b"1") + part("mix", b"0") + part("file", WAV, "a.wav") + END, 422),
        (part("mix", b"9" * 5000) + part("file", WAV, "a.wav") + END, 422),
        (part("mix", b"\xff\xfe") + part("file", WAV, "a.wav") + END, 422),
        (b"".join(part(f"f{i}", b"") for i in range(40)) + END, 422),
        (f"--{BOUNDARY}\r\nX: {'y' * 9000}\r\n\r\n".encode() + END, 400),
        (f"--{BOUNDARY}\r\nContent-Type: a/b\r\n\r\nx\r\n".encode() + END, 400),
    ],
)
def test_malformed_bodies(body: bytes, code: int, tmp_path: Path) -> None:
    assert status(body, tmp_path) == code


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"])
def test_other_kinds_of_body(kind: str, tmp_path: Path) -> None:
    assert status(END, tmp_path, **{"content-type": kind}) == 415


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("/etc/shadow", "shadow"),
        ("a\x00b\r\nX: y.wav", "abX y.wav"),
        ("..", "sound"),
        ("", "sound"),
        ("name.wav/", "name.wav"),
        ("Vögel am Morgen.flac", "Vögel am Morgen.flac"),
        ("x" * 500 + ".wav", "x" * 96 + ".wav"),
    ],
)
def test_names_lose_their_paths(sent: str, kept: str) -> None:
    assert clean_name(sent) == kept


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_no_name_leads_anywhere(name: str) -> None:
    kept = clean_name(name)
    assert kept and len(kept) <= 100 and kept.isprintable()
    assert not set(kept) & set('/\\:"') and kept.strip(".") and Path("folder", kept).parent == Path("folder")


@pytest.mark.parametrize("name", ["../../../escape.wav", "/escape.wav", "a/../../escape.wav", "..\\escape.wav"])
def test_files_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    upload = receive(part("file", WAV, name) + END, folder)
    assert upload.path == folder / "input.wav"
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "input.wav"]


@pytest.mark.parametrize(
    "playlist", [b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n", b"<?xml?>"]
)
@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_playlists_that_name_other_files_are_not_opened(playlist: bytes, suffix: str, tmp_path: Path) -> None:
    assert status(part("file", playlist, f"list{suffix}") + END, tmp_path) == 415


@pytest.mark.parametrize(
    ("start", "name", "suffix"),
    [
        (b"fLaC", "talk", ".flac"),
        (b"fLaC", "talk.exe", ".flac"),
        (b"OggS", "talk", ".ogg"),
        (b"\0\0\0\x18ftypM4A ", "talk", ".mp4"),
        (b"RIFF", "talk.WAV", ".wav"),
        (b"what", "talk.py", ".wav"),
    ],
)
def test_the_suffix_is_one_of_ours(start: bytes, name: str, suffix: str, tmp_path: Path) -> None:
    assert receive(part("file", start + bytes(20), name) + END, tmp_path).path.suffix == suffix
