"""Runtimes side by side, one thread each, and what fewer bits cost in quality: the tables of docs/export.md.

    OMP_NUM_THREADS=1 python benchmarks/runtime.py [--model causal-small] [--seconds 20] [--pairs FOLDER]

Real-time factor: seconds of work for a second of sound; the median of five runs after one to warm up. `hop` is the work
of one hop of a stream. node and Chromium run the engine of the page; what is not installed is left out. FOLDER holds
`clean` and `noisy` recordings, on which the precisions are scored.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import semamba
from semamba import checkpoint
from semamba.export.onnx import PRECISIONS, export, probe
from semamba.export.runtime import OnnxEnhancer, OnnxStreamer
from semamba.inference.base import BaseEnhancer

ENGINE = Path(semamba.__file__).parent / "web" / "static" / "engine"
RUNS = 5

# Given a function that turns a name into bytes: {"wasm": [factor, hop in ms], "js": [...]}.
JAVASCRIPT = """
async function measure(load, seconds, runs) {
  const { Enhancer } = await import(ENGINE + "enhancer.js");
  const { parseSafetensors } = await import(ENGINE + "safetensors.js");
  const config = JSON.parse(new TextDecoder().decode(await load("config.json")));
  const tensors = parseSafetensors(await load("model.safetensors"));
  const wave = new Float32Array(await load("wave"));
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  const result = {};
  for (const wasm of [true, false]) {
    const enhancer = new Enhancer(config, tensors, { wasm });
    const times = [], hops = [], out = new Float32Array(enhancer.hop);
    for (let run = 0; run <= runs; run++) {
      const start = performance.now();
      enhancer.enhance(wave);
      if (run) times.push((performance.now() - start) / 1000 / seconds);
    }
    for (let at = 0; at + enhancer.hop <= wave.length; at += enhancer.hop) {
      const start = performance.now();
      enhancer.process(wave.subarray(at, at + enhancer.hop), out);
      hops.push(performance.now() - start);
    }
    result[enhancer.kind] = [median(times), median(hops)];
  }
  return result;
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=checkpoint.DEFAULT_MODEL)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pairs", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        graphs = export(options.model, folder / "onnx", PRECISIONS)
        enhancers: dict[str, BaseEnhancer] = {"torch": semamba.load(options.model, device="cpu")}
        enhancers |= {f"onnxruntime, {name}": OnnxEnhancer(folder / "onnx", name) for name in PRECISIONS}
        streams = {"torch": lambda: semamba.Streamer(enhancers["torch"])}
        for name in PRECISIONS:
            streams[f"onnxruntime, {name}"] = functools.partial(OnnxStreamer, folder / "onnx", precision=name)
        speeds(options.model, options.seconds, enhancers, streams, folder)
        print(f"\n| {options.model} | MB | largest difference to torch | signal to difference |\n|---|---:|---:|---:|")
        for graph in graphs:
            print(f"| {graph.precision} | {graph.bytes / 1e6:.2f} | {graph.error:.1e} | {graph.decibels:.0f} dB |")
        if options.pairs is not None:
            scores(options.pairs, enhancers)


def speeds(
    model: str,
    seconds: float,
    enhancers: dict[str, BaseEnhancer],
    streams: dict[str, Callable[[], semamba.Streamer]],
    folder: Path,
) -> None:
    wave = probe(seconds)
    print(f"| {model}, {seconds:g} s, one thread | real-time factor | hop, median |\n|---|---:|---:|")
    for name, enhancer in enhancers.items():
        hop = f"{1000 * hop_seconds(streams[name](), wave):.2f} ms" if enhancer.engine(1, 16_000).causal else "-"
        print(f"| {name} | {file_seconds(enhancer, wave) / seconds:.3f} | {hop} |", flush=True)
    if checkpoint.describe(model)["model"]["kind"] != "causal":
        return
    shutil.copytree(checkpoint.locate(model), folder / "site")
    shutil.copytree(ENGINE, folder / "site" / "engine")
    wave.tofile(folder / "site" / "wave")
    for name, run in (("node", in_node), ("Chromium", in_chromium)):
        for kind, (factor, hop) in run(folder / "site", seconds).items():
            print(f"| engine of the page, {kind}, {name} | {factor:.3f} | {hop:.2f} ms |", flush=True)


def file_seconds(enhancer: BaseEnhancer, wave: np.ndarray) -> float:
    times = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        enhancer(wave)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def hop_seconds(stream: semamba.Streamer, wave: np.ndarray) -> float:
    times = []
    for start in range(0, wave.size - 255, 256):
        began = time.perf_counter()
        stream.feed(wave[start : start + 256])
        times.append(time.perf_counter() - began)
    return statistics.median(times[20:])


def in_node(site: Path, seconds: float) -> dict[str, list[float]]:
    node = shutil.which("node")
    if node is None:
        return {}
    (site / "engine" / "package.json").write_text('{"type": "module"}')
    script = f"""
    import fs from "node:fs";
    const ENGINE = {json.dumps((site / "engine").as_uri() + "/")};
    {JAVASCRIPT}
    const load = async (name) => new Uint8Array(fs.readFileSync({json.dumps(str(site))} + "/" + name)).buffer;
    console.log(JSON.stringify(await measure(load, {seconds}, {RUNS})));
    """
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def in_chromium(site: Path, seconds: float) -> dict[str, list[float]]:
    browser, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if not browser or not driver:
        return {}
    from selenium import webdriver

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (site / "index.html").write_text("<!doctype html><title>engine</title>")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        window.set_script_timeout(600)
        window.get(f"http://127.0.0.1:{server.server_address[1]}/")
        load = "async (name) => (await fetch('/' + name)).arrayBuffer()"
        script = f"const ENGINE = '/engine/'; {JAVASCRIPT} measure({load}, {seconds}, {RUNS}).then(arguments[0]);"
        return window.execute_async_script(script)
    finally:
        window.quit()
        server.shutdown()


def scores(pairs: Path, enhancers: dict[str, BaseEnhancer]) -> None:
    from semamba import audio
    from semamba.metrics.evaluate import score

    names = sorted(path.name for path in (pairs / "clean").iterdir() if (pairs / "noisy" / path.name).exists())
    print(f"\n| mean of {len(names)} pairs | PESQ | STOI | SI-SDR |\n|---|---:|---:|---:|")
    for label, enhancer in enhancers.items():
        rows = []
        for name in names:
            (clean, rate), (noisy, _) = (audio.read(pairs / part / name) for part in ("clean", "noisy"))
            rows.append(score(clean[0], enhancer(noisy, rate)[0], rate))
        means = [statistics.mean(row[key] for row in rows) for key in ("pesq", "stoi", "si_sdr")]
        print(f"| {label} | {means[0]:.4f} | {means[1]:.4f} | {means[2]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
