"""`semamba serve` as a process: it says where it is, finishes what runs, and names what is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semamba.cli import app

pytest.importorskip("fastapi", reason="the server needs: pip install 'semamba[web]'")

import httpx

from tests.web.serving import encode, noisy

MAIN = "from semamba.cli import main; main()"


class Process:
    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-c", MAIN, "serve", "--port", "0", *arguments]
        # A folder for temporary files of its own, so that what stays behind can be seen.
        environment = {**os.environ, "TMPDIR": str(folder)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment)
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if found := re.search(r"http://[\d.]+:\d+", line):
                self.url = found[0]
                return
        raise AssertionError(self.said)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    started = Process(tmp_path)
    yield started
    started.process.kill()
    started.process.wait(30)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
def test_the_signal_to_stop_lets_running_work_finish(process: Process, tmp_path: Path) -> None:
    content = encode(noisy(60))
    answers: list[httpx.Response] = []
    busy = threading.Thread(
        target=lambda: answers.append(
            httpx.post(process.url + "/v1/enhance", files={"file": ("a.wav", content)}, timeout=300)
        )
    )
    busy.start()
    while httpx.get(process.url + "/healthz").json()["files"] == 0:
        assert busy.is_alive()
    process.process.send_signal(signal.SIGTERM)
    code = process.process.wait(300)
    busy.join()
    assert answers and answers[0].status_code == 200 and len(answers[0].content) == len(content)
    assert code in (0, -signal.SIGTERM)
    assert not list(tmp_path.glob("semamba-serve-*"))
    with pytest.raises(httpx.ConnectError):
        httpx.get(process.url + "/healthz")


def test_strangers_are_warned_about(tmp_path: Path) -> None:
    open_to_all = Process(tmp_path, "--host", "0.0.0.0")
    open_to_all.end()
    assert "--token" in open_to_all.said


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('gone', name='fastapi')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", MAIN, "serve"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 1
    assert "pip install 'semamba[web]'" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "about"),
    [(["--max-seconds", "0"], "max-seconds"), (["--token", "abc"], "token"), (["--model", "no-such"], "no-such")],
)
def test_settings_that_make_no_sense(arguments: list[str], about: str) -> None:
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 1 and about in result.output and "Traceback" not in result.output


def test_every_option_reaches_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from semamba.web.settings import Settings

    seen: list[Settings] = []
    monkeypatch.setattr("semamba.web.server.run", lambda settings, started: seen.append(settings))
    words = ["serve", "--host", "::1", "--port", "9", "--model", "m", "--token", "x" * 8, "--max-megabytes", "7",
             "--max-seconds", "11", "--jobs", "3", "--name", "a.example"]  # fmt: skip
    assert CliRunner().invoke(app, words).exit_code == 0
    assert seen == [Settings("::1", 9, "m", "x" * 8, 7.0, 11.0, 3, ("a.example",))]
