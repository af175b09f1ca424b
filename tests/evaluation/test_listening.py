"""Listening tests: fair stimuli, hidden names, ratings put together, the page in a browser."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from semamba.data.mixing import active_rms
from semamba.errors import SemambaError
from semamba.evaluation.listening import ANCHOR, COLUMNS, REFERENCE, make_test, matched, ratings
from semamba.evaluation.report_data import Record, read_records
from tests.evaluation.conftest import RATE, voice
from tests.evaluation.test_report import write_results


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    return read_records([write_results(tmp_path / "results")])


def page_data(folder: Path) -> dict[str, Any]:
    text = (folder / "index.html").read_text()
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def wave(clip: str) -> np.ndarray:
    return soundfile.read(io.BytesIO(base64.b64decode(clip)))[0]


def test_mushra_has_a_hidden_reference_and_an_anchor(records: list[Record], tmp_path: Path) -> None:
    names = make_test(records, tmp_path / "test", "mushra", 5, 0, "Title")
    assert names == ["sweep: u01.wav", "sweep: u02.wav"]
    data, key = page_data(tmp_path / "test"), json.loads((tmp_path / "test/key.json").read_text())
    for trial in data["trials"]:
        systems = key["trials"][trial["id"]]["stimuli"]
        assert set(systems.values()) == {"noisy", "better", "equal", REFERENCE, ANCHOR}
        by_name = {systems[identifier]: wave(clip) for identifier, clip in trial["stimuli"].items()}
        assert np.array_equal(by_name[REFERENCE], wave(trial["reference"]))
        levels = [active_rms(found, RATE) for found in by_name.values()]
        assert max(levels) / min(levels) < 1.02  # "better" was half as loud
        power = np.abs(np.fft.rfft(by_name[ANCHOR])) ** 2
        assert power[round(4200 * len(by_name[ANCHOR]) / RATE) :].sum() < 1e-4 * power.sum()
        trial["reference"] = ""
        trial["stimuli"] = list(trial["stimuli"])
    assert not any(name in json.dumps(data) for name in ("better", "hidden)", "3.5 kHz", "u01"))


def test_ab_has_every_pair(records: list[Record], tmp_path: Path) -> None:
    make_test(records, tmp_path, "ab", 1, 0, "Title")
    (trial,) = page_data(tmp_path)["trials"]
    assert len(trial["pairs"]) == 3 and set(sum(trial["pairs"], [])) == set(trial["stimuli"])


def test_matching_never_clips() -> None:
    quiet, loud = voice(1.0), voice(1.0)
    loud[100] = 30.0
    found = matched({"a": quiet, "b": loud, "c": np.zeros_like(quiet)}, RATE)
    assert max(np.abs(x).max() for x in found.values()) <= 0.9901
    assert not found["c"].any()


def test_results_without_sound_are_refused(records: list[Record], tmp_path: Path) -> None:
    mute = [Record(records[0].content | {"audio": {}}, tmp_path)]
    with pytest.raises(SemambaError, match="no recordings to listen to"):
        make_test(mute, tmp_path, "mushra", 5, 0, "")


def answer(folder: Path, path: Path, scores: dict[str, float], listener: str = "me") -> Path:
    """Ratings of one listener who gives each system the same score in every trial."""
    key = json.loads((folder / "key.json").read_text())
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for trial, entry in key["trials"].items():
            for stimulus, system in entry["stimuli"].items():
                rows.writerow([listener, key["method"], key["test"], trial, stimulus, scores[system]])
    return path


SCORES = {"noisy": 30, "better": 70, "equal": 40, REFERENCE: 100, ANCHOR: 20}


def test_ratings(records: list[Record], tmp_path: Path) -> None:
    make_test(records, tmp_path, "mushra", 2, 0, "")
    files = [
        answer(tmp_path, tmp_path / "a.csv", SCORES),
        answer(tmp_path, tmp_path / "b.csv", SCORES | {"better": 80}),
        answer(tmp_path, tmp_path / "deaf.csv", dict.fromkeys(SCORES, 50)),
    ]
    found = ratings(tmp_path, files)
    assert found.listeners == 2 and found.excluded == ("deaf.csv: me",) and found.unknown == 0
    assert list(found.systems) == [REFERENCE, "better", "equal", "noisy", ANCHOR]
    assert (found.systems["better"].mean, found.systems["better"].count) == (75, 2)
    assert found.systems["better"].half_width == pytest.approx(12.7062 * 5, rel=1e-3)
    with pytest.raises(SemambaError, match="no ratings of this test are left"):
        ratings(tmp_path, files[2:])


def test_ratings_of_another_test_are_counted_not_used(records: list[Record], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        make_test(records, tmp_path / name, "mushra", 2, seed, "")
    both = [answer(tmp_path / name, tmp_path / f"{name}.csv", SCORES) for name in "ab"]
    assert ratings(tmp_path / "a", both).unknown == 10


def test_bad_ratings(records: list[Record], tmp_path: Path) -> None:
    make_test(records, tmp_path, "mushra", 1, 0, "")
    path = answer(tmp_path, tmp_path / "a.csv", SCORES | {"noisy": 130})
    with pytest.raises(SemambaError, match="score '130' is not a number from 0 to 100"):
        ratings(tmp_path, [path])
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SemambaError, match="lacks the column 'listener'"):
        ratings(tmp_path, [path])
    with pytest.raises(SemambaError, match="name the folder of the test"):
        ratings(tmp_path / "none", [path])


@pytest.mark.parametrize("method", ["mushra", "ab"])
def test_a_listener_in_the_browser(method: str, records: list[Record], tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    from tests.browser import browser

    make_test(records, tmp_path / "test", method, 1, 0, "Which is better?")
    with browser() as driver:
        driver.get((tmp_path / "test/index.html").as_uri())
        wait = WebDriverWait(driver, 20)
        driver.find_element("id", "listener").send_keys("Ann")
        driver.find_element("id", "begin").click()
        screens = 1 if method == "mushra" else 3
        for number in range(screens):
            wait.until(lambda d: d.execute_script("return document.querySelectorAll('[data-player]').length") > 0)
            wait.until(lambda d, n=number: d.find_element("id", "where").text == f"Trial {n + 1} of {screens}")
            wait.until(lambda d: d.find_element("id", "next").get_attribute("disabled"))
            driver.find_element("css selector", "[data-player='1']").click()
            assert driver.execute_script("return document.querySelector('[data-player=\"1\"]').ariaPressed") == "true"
            rate = """for (const s of document.querySelectorAll("input[type=range]")) {
                s.value = 60; s.dispatchEvent(new Event("input")); }
                document.querySelector("[data-choice='100']")?.click();"""
            driver.execute_script(rate)
            driver.find_element("id", "next").click()
        wait.until(lambda d: d.find_element("id", "save").is_displayed())
        read = "const d = arguments[0]; fetch(document.querySelector('#save').href).then(r => r.text()).then(d)"
        text = driver.execute_async_script(read)
        assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    (tmp_path / "ann.csv").write_text(text)
    if method == "ab":
        found = ratings(tmp_path / "test", [tmp_path / "ann.csv"])
        assert sum(value.mean for value in found.systems.values()) == pytest.approx(150)  # three pairs share 100 each
    else:
        rows = list(csv.DictReader(io.StringIO(text)))
        assert len(rows) == 5 and {row["score"] for row in rows} == {"60"} and rows[0]["listener"] == "Ann"
