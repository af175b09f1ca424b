"""The engine as an AudioWorklet in Chromium: what comes out is what Python gives, as late as it says."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from semamba import checkpoint
from semamba.inference.core import CausalCore

webdriver = pytest.importorskip("selenium.webdriver", reason="Chromium is driven by selenium")
ENGINE = Path(__file__).parents[3] / "src" / "semamba" / "web" / "static" / "engine"
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no Chromium with its driver here")

_RENDER = """
const [wave, wasm, mix, done] = arguments;
(async () => {
  const { loadModel } = await import("/engine/enhancer.js");
  const { config, tensors } = await loadModel(location.origin + "/model/");
  const context = new OfflineAudioContext(1, wave.length, 16000);
  await context.audioWorklet.addModule("/engine/worklet.js");
  const node = new AudioWorkletNode(context, "semamba-enhancer", {
    numberOfInputs: 1, numberOfOutputs: 1, outputChannelCount: [1], processorOptions: { config, tensors, wasm, mix },
  });
  const hello = new Promise((resolve) => (node.port.onmessage = ({ data }) => resolve(data)));
  const source = context.createBufferSource();
  source.buffer = context.createBuffer(1, wave.length, 16000);
  source.buffer.copyToChannel(Float32Array.from(wave), 0);
  source.connect(node).connect(context.destination);
  source.start();
  const told = await hello;
  const result = await context.startRendering();
  done([told, [...result.getChannelData(0)]]);
})().catch((error) => done([{ error: String(error) }, []]));
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the engine and the default model on loopback, where worklets are allowed."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ENGINE, folder / "engine")
    shutil.copytree(checkpoint.locate(checkpoint.DEFAULT_MODEL), folder / "model")
    (folder / "index.html").write_text("<!doctype html><title>engine</title>")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    driver.get(address)
    yield driver
    driver.quit()


@pytest.mark.parametrize(("wasm", "mix"), [(True, 1.0), (False, 1.0), (True, 0.25)])
def test_equals_python(wasm: bool, mix: float, browser: webdriver.Chrome) -> None:
    rng, time = np.random.default_rng(0), np.arange(16_000) / 16_000
    wave = (0.3 * np.sin(2 * np.pi * 440 * time) * (time % 0.5 > 0.2) + 0.05 * rng.standard_normal(16_000)).astype("f")
    told, result = browser.execute_async_script(_RENDER, wave.tolist(), wasm, mix)
    assert told == {"ready": True, "latency": 511, "kind": "wasm" if wasm else "js"}
    core = CausalCore(checkpoint.load(checkpoint.DEFAULT_MODEL), 1)
    enhanced = np.concatenate([core.push(wave[None]), core.finish()], axis=1)[0]
    expected = mix * enhanced + (1 - mix) * wave
    np.testing.assert_allclose(result[511:], expected[:-511], atol=1e-5)
    assert not np.any(result[:511]) and np.abs(enhanced - wave).max() > 0.01


def test_says_what_is_wrong(browser: webdriver.Chrome) -> None:
    script = _RENDER.replace("config, tensors, wasm, mix", "config: {kind: 'x', stft: {}}, tensors, wasm")
    told, _ = browser.execute_async_script(script, [0.0] * 512, True, 1.0)
    assert "error" in told
