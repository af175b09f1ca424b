"""Loads `semamba serve` on loopback for a minute: parallel uploads and live streams; writes a table into docs/web.md.

    python benchmarks/serve.py [--seconds 60] [--uploads 20] [--streams 10] [--write]

Every upload must come back whole and every live sample must come back; the exit code is 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from document import write_section
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "web.md"
RATE, BLOCK = 16_000, 320  # live: 20 ms, as a browser sends
MOST_SECONDS = 300


@dataclass
class Tally:
    """What happened; lists are appended to by many threads."""

    uploads: list[float] = field(default_factory=list)  # seconds each took
    delays: list[float] = field(default_factory=list)  # seconds from a block's sending to the arrival of its samples
    sent: list[int] = field(default_factory=list)  # samples of each live stream
    received: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # MB, once a second


def upload(url: str, content: bytes, until: float, tally: Tally) -> None:
    with httpx.Client(timeout=300) as client:
        while time.monotonic() < until:
            started = time.monotonic()
            answer = client.post(f"{url}/v1/enhance", files={"file": ("noisy.wav", content)})
            if answer.status_code != 200 or len(answer.content) != len(content):
                tally.lost.append(f"upload: {answer.status_code} with {len(answer.content)} bytes")
            tally.uploads.append(time.monotonic() - started)


def stream(url: str, wave: np.ndarray, until: float, tally: Tally) -> None:
    """In real time: a block every 20 ms, whatever comes back."""
    sent_at: list[float] = []
    count = 0
    with connect(url.replace("http", "ws") + "/v1/stream") as socket:
        socket.send(json.dumps({"rate": RATE, "format": "float32"}))
        late = json.loads(socket.recv(timeout=60))["latency_samples"]
        last: dict[str, int] = {}

        def listen() -> None:
            nonlocal count
            while isinstance(message := socket.recv(timeout=60), bytes):
                for done in range(count // BLOCK, (count + len(message) // 4) // BLOCK):
                    if done < len(sent_at):
                        tally.delays.append(time.monotonic() - sent_at[done])
                count += len(message) // 4
            last.update(json.loads(message))

        listener = threading.Thread(target=listen)
        listener.start()
        started = time.monotonic()
        while (now := time.monotonic()) < until:
            first = len(sent_at) * BLOCK % (len(wave) - BLOCK)
            sent_at.append(now)
            socket.send(wave[first : first + BLOCK].tobytes())
            time.sleep(max(0.0, started + len(sent_at) * BLOCK / RATE - time.monotonic()))
        socket.send('{"type": "end"}')
        listener.join(60)
    tally.sent.append(len(sent_at) * BLOCK)
    tally.received.append(count)
    if count != len(sent_at) * BLOCK + late or last.get("received") != len(sent_at) * BLOCK:
        tally.lost.append(f"stream: {count} samples back of {len(sent_at) * BLOCK} + {late}")


def resident(process: int) -> float:
    """MB in memory; Linux only."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1e3
    return 0.0


def load(seconds: float, uploads: int, streams: int) -> Tally:
    command = [sys.executable, "-c", "from semamba.cli import main; main()", "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        address = re.search(r"http://[\d.]+:\d+", server.stdout.readline())
        assert address, "the server did not start"
        content = (ROOT / "examples" / "noisy.wav").read_bytes()
        wave = np.frombuffer(content[44:], "<i2").astype(np.float32) / 32768
        tally = Tally()
        httpx.post(f"{address[0]}/v1/enhance", files={"file": ("noisy.wav", content)}, timeout=300)
        until = time.monotonic() + seconds
        workers = [threading.Thread(target=upload, args=(address[0], content, until, tally)) for _ in range(uploads)]
        workers += [threading.Thread(target=stream, args=(address[0], wave, until, tally)) for _ in range(streams)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            tally.memory.append(resident(server.pid))
            time.sleep(1)
        return tally
    finally:
        server.terminate()
        server.wait(60)


def report(tally: Tally, arguments: argparse.Namespace) -> str:
    third = max(1, len(tally.memory) // 3)
    middle, end = np.median(tally.memory[third : 2 * third]), np.median(tally.memory[-third:])
    took, delays = np.array(tally.uploads), 1000 * np.array(tally.delays)
    rows = [
        ("parallel uploads of 4.6 s of sound", f"{arguments.uploads}"),
        ("uploads answered", f"{len(took)}, {len(took) / arguments.seconds:.1f} a second"),
        ("time of an upload, median / 99 %", f"{np.median(took):.2f} / {np.percentile(took, 99):.2f} s"),
        ("live streams, 20 ms blocks", f"{arguments.streams}"),
        ("samples sent and given back", f"{sum(tally.sent):,}"),
        ("block to answer, median / 99 %", f"{np.median(delays):.0f} / {np.percentile(delays, 99):.0f} ms"),
        ("lost uploads or samples", f"{len(tally.lost)}"),
        ("memory, second / last third", f"{middle:.0f} / {end:.0f} MB"),
    ]
    busy = os.getloadavg()[0]
    about = (
        f"{arguments.seconds:g} s, {os.cpu_count()} cores of {platform.machine()}, load average at the end {busy:.1f}:"
    )
    return "\n".join([about, "", "| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--uploads", type=int, default=20)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="put the table into docs/web.md")
    arguments = parser.parse_args()
    if not 1 <= arguments.seconds <= MOST_SECONDS or arguments.uploads > 30 or arguments.streams > 16:
        parser.error(f"at most {MOST_SECONDS} s, 30 uploads and 16 streams")
    tally = load(arguments.seconds, arguments.uploads, arguments.streams)
    table = report(tally, arguments)
    print(table)
    for line in tally.lost[:10]:
        print("lost:", line, file=sys.stderr)
    if arguments.write:
        write_section(PAGE, "load", "serve", table)
    return 1 if tally.lost else 0


if __name__ == "__main__":
    sys.exit(main())
