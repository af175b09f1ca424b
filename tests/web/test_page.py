"""The page in headless Chromium, from the dropped file to the downloaded one."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import semamba
from semamba import checkpoint, models
from semamba.models.basic import BasicConfig
from semamba.models.mixers import MixerConfig
from semamba.web.settings import STATIC, Settings
from tests.web.serving import Running, encode, noisy, running

webdriver = pytest.importorskip("selenium.webdriver", reason="needs the library selenium")
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
if not (BROWSER and DRIVER):
    pytest.skip("chromium and chromedriver are not installed here", allow_module_level=True)

SECONDS = 90.0  # patience with a busy machine


class Page:
    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def open(self, url: str) -> Page:
        self.driver.get_log("browser")  # of the page before
        self.driver.get(url)
        self.wait(lambda: self.run("return document.body.dataset.ready === 'yes'"))
        return self

    def run(self, script: str, *values: object) -> Any:
        return self.driver.execute_script(script, *values)

    def wait(self, condition: Callable[[], Any]) -> Any:
        until = time.monotonic() + SECONDS
        while not (found := condition()):
            assert time.monotonic() < until, f"state {self.state!r}, message {self.message!r}"
            time.sleep(0.05)
        return found

    def click(self, name: str) -> None:
        self.driver.find_element("id", name).click()

    def press(self, keys: str) -> None:
        self.driver.find_element("tag name", "body").send_keys(keys)

    def text(self, name: str) -> str:
        return str(self.driver.find_element("id", name).text)

    @property
    def state(self) -> str:
        return str(self.run("return document.body.dataset.state"))

    @property
    def message(self) -> str:
        return str(self.run("const m = document.getElementById('message'); return m.hidden ? '' : m.textContent"))

    def upload(self, content: bytes, name: str) -> None:
        path = self.folder / name
        path.write_bytes(content)
        self.driver.find_element("id", "file").send_keys(str(path))

    def finished(self) -> None:
        self.wait(lambda: self.state in ("result", "failed"))
        assert self.state == "result", self.message
        self.wait(lambda: not self.run("return document.getElementById('download').disabled"))
        time.sleep(0.2)  # pictures are painted in the next frame

    def download(self, name: str) -> tuple[np.ndarray, int, soundfile._SoundFileInfo]:
        """(channels, n), its rate, and what the file says about itself."""
        target = self.folder / name
        target.unlink(missing_ok=True)
        self.click("download")
        self.wait(target.exists)
        self.wait(lambda: not list(self.folder.glob("*.crdownload")))
        wave, rate = soundfile.read(target, dtype="float32", always_2d=True)
        return wave.T, rate, soundfile.info(target)

    def pixels(self, name: str) -> np.ndarray:
        """(height, width, 4) of a canvas."""
        data = self.run(
            "const c = document.getElementById(arguments[0]); const i = c.getContext('2d').getImageData(0, 0, c.width,"
            " c.height); return [c.width, c.height, btoa(Array.from(i.data, v => String.fromCharCode(v)).join(''))]",
            name,
        )
        import base64

        return np.frombuffer(base64.b64decode(data[2]), np.uint8).reshape(data[1], data[0], 4)

    def complaints(self) -> list[str]:
        """Errors in the browser's console."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def set(self, name: str, value: float) -> None:
        script = "const s = document.getElementById(arguments[0]); s.value = arguments[1]; "
        script += "s.dispatchEvent(new Event('input'))"
        self.run(script, name, value)


@pytest.fixture(scope="module")
def site() -> Iterator[Running]:
    with running(Settings(max_megabytes=5, max_seconds=60)) as it:
        yield it


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("downloads")
    microphone = folder / "microphone.wav"
    shutil.copy(STATIC / "example.wav", microphone)
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER, env={**os.environ}))
    driver.set_script_timeout(SECONDS)
    try:
        yield Page(driver, folder)
    finally:
        driver.quit()


def lateness(wave: np.ndarray, expected: np.ndarray) -> int:
    """Samples by which `wave` is late, 4000 at most."""
    size = 2 * len(wave)
    product = np.fft.irfft(np.fft.rfft(wave, size) * np.conj(np.fft.rfft(expected, size)), size)
    return int(np.argmax(np.concatenate([product[-4000:], product[:4000]]))) - 4000


def lit(pixels: np.ndarray) -> float:
    """Share of a spectrogram that is brighter than its ground."""
    return float((pixels[..., 0] > 100).mean())


def test_upload_compare_download(page: Page, site: Running) -> None:
    wave = noisy(2.0)
    content = encode(wave)
    page.open(site.url).upload(content, "talk.wav")
    page.finished()
    assert page.text("name") == "talk.wav" and "16 kHz" in page.text("facts")
    before, after = page.pixels("spectrum-before"), page.pixels("spectrum-after")
    assert before.shape == after.shape and len(np.unique(before[..., 0])) > 50
    assert lit(after) < 0.8 * lit(before)  # the noise is gone from the picture
    assert 0.01 < (page.pixels("wave-after")[..., 3] > 0).mean() < 0.9
    result, rate, info = page.download("talk.enhanced.wav")
    assert (rate, info.format, info.subtype) == (16_000, "WAV", "PCM_16") and result.shape == wave.shape
    quantised, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_allclose(result[0], semamba.enhance(quantised), atol=1.5 / 32768)
    assert np.abs(result - wave).max() > 0.05
    assert not page.complaints()


def test_strength_mixes_the_input_back_in(page: Page, site: Running) -> None:
    wave = noisy(1.0)
    page.open(site.url).upload(encode(wave, subtype="FLOAT"), "soft.wav")
    page.finished()
    full = page.pixels("spectrum-after")
    page.set("strength", 50)
    page.set("limit", 12)
    page.wait(lambda: not np.array_equal(page.pixels("spectrum-after"), full))
    result, _, info = page.download("soft.enhanced.wav")
    assert info.subtype == "FLOAT"
    np.testing.assert_allclose(result, semamba.enhance(wave, mix=0.5, attenuation_limit=12), atol=1e-4)
    page.set("strength", 0)
    np.testing.assert_array_equal(page.download("soft.enhanced.wav")[0], wave)


@pytest.mark.parametrize(
    ("rate", "channels", "tolerance"), [(16_000, 1, 1e-3), (48_000, 2, 1e-3), (44_100, 1, 1e-3), (8000, 1, 1e-3)]
)
def test_in_this_browser_it_is_the_same(page: Page, site: Running, rate: int, channels: int, tolerance: float) -> None:
    wave = noisy(1.5, rate, channels)
    page.open(site.url).click("at-browser")
    asked = site.shop.gate._typical
    page.upload(encode(wave, rate, subtype="FLOAT"), "local.wav")
    page.finished()
    result, rate_out, _ = page.download("local.enhanced.wav")
    assert rate_out == rate
    np.testing.assert_allclose(result, semamba.enhance(wave, rate), atol=tolerance)
    assert site.shop.gate._typical == asked  # the server did nothing
    assert not page.complaints()


def test_other_settings_do_it_again(page: Page, site: Running) -> None:
    wave = noisy(1.0)
    page.open(site.url).upload(encode(wave, subtype="FLOAT"), "again.wav")
    page.finished()
    plain, _, _ = page.download("again.enhanced.wav")
    page.click("pcs")
    page.finished()
    stretched, _, _ = page.download("again.enhanced.wav")
    np.testing.assert_allclose(stretched, semamba.enhance(wave, pcs=True), atol=1e-4)
    assert np.abs(stretched - plain).max() > 1e-3


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3", "AIFF"])
def test_formats(page: Page, site: Running, format: str) -> None:
    """AIFF is nothing browsers read: there the server decodes."""
    page.open(site.url).upload(encode(noisy(1.0, 22_050), 22_050, format=format), f"x.{format.lower()}")
    page.finished()
    assert "22.05 kHz" in page.text("facts")
    result, rate, _ = page.download("x.enhanced.wav")
    assert rate == 22_050 and abs(result.shape[1] - 22_050) < 2500


def test_listening(page: Page, site: Running) -> None:
    page.open(site.url).click("example")
    page.finished()
    heard = "return document.querySelector('.track.heard').id"
    assert page.run(heard) == "track-after"
    page.press(" ")
    page.wait(lambda: page.run("return document.getElementById('play').classList.contains('playing')"))
    page.wait(lambda: float(page.run("return document.getElementById('seek').value")) > 0)
    for key, track in (("a", "track-before"), ("b", "track-after"), ("x", "track-before"), ("x", "track-after")):
        page.press(key)
        assert page.run(heard) == track
    page.press(" ")
    page.wait(lambda: not page.run("return document.getElementById('play').classList.contains('playing')"))


def test_errors_in_words(page: Page, site: Running) -> None:
    page.open(site.url).upload(b"no sound in here", "letter.wav")
    page.wait(lambda: "Letter.wav" in page.message or "letter.wav" in page.message)
    assert page.state == "empty"
    page.upload(encode(noisy(61, 8000), 8000), "long.wav")
    page.wait(lambda: "longer than 60 s" in page.message)
    page.upload(encode(noisy(0.5)), "short.wav")
    page.finished()
    assert page.message == ""


@pytest.mark.parametrize("where", ["at-server", "at-browser"])
def test_live(page: Page, site: Running, where: str) -> None:
    page.open(site.url).click(where)
    page.click("tab-live")
    page.click("live-toggle")
    page.wait(lambda: page.state == "live")
    if where == "at-server":
        page.wait(lambda: site.shop.live.count == 1)
    page.click("live-wet")
    page.wait(lambda: "0:03" in page.text("live-facts"))
    assert "ms behind" in page.text("live-facts")
    before, after = (lit(page.pixels(f"live-{side}")) for side in ("before", "after"))
    assert 0.001 < after < before
    page.click("live-toggle")
    page.finished()
    assert page.text("name") == "live.wav"
    if where == "at-server":
        page.wait(lambda: site.shop.live.count == 0)
    page.set("strength", 0)
    dry, rate, _ = page.download("live.enhanced.wav")
    page.set("strength", 100)
    wet, _, _ = page.download("live.enhanced.wav")
    assert dry.shape == wet.shape and dry.shape[1] > 2 * rate and np.abs(dry).max() > 0.1
    if where == "at-server":
        # Before the first sample lies the silence of the delay: without it this is what the server got, and gave.
        start = int(np.argmax(dry[0] != 0))
        expected = semamba.enhance(dry[:, start:], rate, bandwidth="model")
        assert lateness(wet[0, start : -rate // 4], expected[0, : -rate // 4]) == 0
    # Speech is what a model keeps: before and after lie at the same time.
    assert abs(lateness(wet[0, rate // 2 :], dry[0, rate // 2 :])) <= 2
    assert not page.complaints()


def test_space_while_a_live_session_opens(page: Page, site: Running) -> None:
    page.open(site.url).click("at-server")
    page.click("tab-live")
    space = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: ' ', bubbles: true, repeat: %s}));"
    pressed, held = space % "false", space % "true"
    page.run("document.activeElement.blur();" + pressed + pressed)
    page.wait(lambda: page.state == "live" and site.shop.live.count)
    time.sleep(1)  # a second session would be there by now
    assert site.shop.live.count == 1
    page.run(held)
    assert page.state == "live"
    page.run(pressed)
    page.wait(lambda: page.state != "live" and site.shop.live.count == 0)


def test_recording(page: Page, site: Running) -> None:
    page.open(site.url).click("record")
    page.wait(lambda: page.state == "recording" and "0:01" in page.text("recording-time"))
    page.click("record-stop")
    page.finished()
    wave, _, _ = page.download("recording.enhanced.wav")
    assert wave.shape[1] > 40_000


MICROPHONES = """
    window.streams = [];
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wish) => (streams.push(await open(wish)), streams.at(-1));
"""
LISTENING = "return streams.filter((stream) => stream.active).length"


def test_no_microphone_is_left_open(page: Page, site: Running) -> None:
    page.open(site.url).run(MICROPHONES)
    page.run("const button = document.getElementById('record'); button.click(); button.click();")
    page.wait(lambda: page.state == "recording" and "0:01" in page.text("recording-time"))
    assert page.run("return streams.length") == 1
    page.upload(encode(noisy(0.5)), "other.wav")
    page.finished()
    assert page.text("name") == "other.wav" and page.run(LISTENING) == 0
    page.click("again")
    page.run("document.getElementById('record').click(); document.getElementById('tab-live').click();")
    page.wait(lambda: page.run("return streams.length") == 2)
    page.wait(lambda: page.run(LISTENING) == 0)
    page.click("tab-file")
    assert page.state == "empty" and not page.complaints()


def test_a_microphone_that_goes_ends_the_session_in_words(page: Page, site: Running) -> None:
    page.open(site.url).run(MICROPHONES)
    page.click("at-server")
    page.click("tab-live")
    page.click("live-toggle")
    page.wait(lambda: "0:02" in page.text("live-facts"))
    page.run("const track = streams[0].getTracks()[0]; track.stop(); track.onended();")
    page.finished()
    assert page.text("name") == "live.wav" and page.run(LISTENING) == 0


def test_work_on_another_file_does_not_land_on_a_live_session(page: Page, site: Running) -> None:
    page.open(site.url).click("at-browser")
    page.upload(encode(noisy(58)), "long.wav")
    page.wait(lambda: page.state == "working")
    page.click("tab-live")
    page.click("live-toggle")
    page.wait(lambda: "0:02" in page.text("live-facts"))
    page.click("live-toggle")
    page.wait(lambda: page.text("name") == "live.wav")
    page.finished()
    time.sleep(3)
    wave, rate, _ = page.download("live.enhanced.wav")
    assert wave.shape[1] < 30 * rate


def test_stopped_work_can_be_tried_again(page: Page, site: Running) -> None:
    page.open(site.url).click("at-browser")
    page.upload(encode(noisy(20)), "talk.wav")
    page.wait(lambda: page.state == "working")
    page.click("cancel")
    page.wait(lambda: page.state == "failed")
    assert page.run("return document.activeElement.id") == "retry"
    page.click("retry")
    page.finished()
    assert not page.run("return document.getElementById('retry').checkVisibility()")


CHOOSE = "const m = document.getElementById('model'); m.value = arguments[0]; m.dispatchEvent(new Event('change'));"


def test_a_model_that_no_browser_runs(page: Page, tmp_path: Path) -> None:
    mixer = MixerConfig("mamba", bidirectional=False)
    stft = replace(BasicConfig().stft, framing="causal")
    config = BasicConfig(stft=stft, channels=(16, 8), blocks=1, mixer=mixer)
    checkpoint.save(tmp_path / "mine", models.build(config), {})
    with running(Settings(model=str(tmp_path / "mine"))) as site:
        page.open(site.url)
        page.run(CHOOSE, "causal-small")
        page.click("at-browser")
        page.run(CHOOSE, "mine")
        page.upload(encode(noisy(0.5)), "talk.wav")
        page.wait(lambda: "runs on the server only" in page.message)
        page.click("at-server")
        page.finished()


def test_seeking_does_not_pile_up_work(page: Page, site: Running) -> None:
    page.open(site.url).upload(encode(noisy(5)), "talk.wav")
    page.finished()
    page.click("loop")
    page.click("play")
    page.run(
        "const seek = document.getElementById('seek');"
        "for (let i = 0; i < 100; i++) { seek.value = i / 200; seek.dispatchEvent(new Event('input')); }"
        "window.frames = 0; const ask = requestAnimationFrame;"
        "window.requestAnimationFrame = (what) => { window.frames += 1; return ask(what); };"
    )
    time.sleep(1)
    assert 0 < page.run("return window.frames") < 300
    page.press(" ")


def test_the_page_asks_for_the_token(page: Page) -> None:
    with running(Settings(token="open sesame")) as site:
        page.driver.get(site.url)
        page.wait(lambda: page.run("return document.getElementById('ask').open"))
        assert not page.driver.find_element("id", "ask-again").is_displayed()
        page.driver.find_element("id", "token").send_keys("something else")
        page.click("token-ok")
        page.wait(lambda: page.driver.find_element("id", "ask-again").is_displayed())
        page.driver.find_element("id", "token").send_keys("open sesame")
        page.click("token-ok")
        page.wait(lambda: page.run("return document.body.dataset.ready === 'yes'"))
        page.click("example")
        page.finished()
        page.click("tab-live")
        page.click("live-toggle")
        page.wait(lambda: page.state == "live")
        page.click("live-toggle")


def test_names_for_those_who_do_not_see(page: Page, site: Running) -> None:
    """Every control has a name, on a narrow screen nothing sticks out."""
    page.open(site.url)
    page.driver.set_window_size(400, 800)
    try:
        page.click("example")
        page.finished()
        nameless = page.run(
            "return [...document.querySelectorAll('button, select, input:not([type=file]), canvas, a')].filter(e => !("
            "e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)"
        )
        assert not nameless
        assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
    finally:
        page.driver.set_window_size(1280, 900)


def test_the_api_page(page: Page, site: Running) -> None:
    page.driver.get_log("browser")
    page.driver.get(site.url + "/docs")
    page.wait(lambda: "/v1/enhance" in page.driver.find_element("tag name", "body").text)
    assert "attenuation_limit" in page.driver.find_element("tag name", "body").text
    assert not page.complaints()
