"""The report: its data, the bundle, what got worse, and the page itself in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semamba import audio
from semamba.errors import SemambaError
from semamba.evaluation import page_bundle
from semamba.evaluation.report_data import build, compare, read_records
from semamba.evaluation.report_page import write_report
from semamba.metrics import report
from semamba.metrics.evaluate import METRICS, Scored
from semamba.metrics.wer import recognition
from tests.evaluation.conftest import RATE, voice

FILES = 24
BASE = np.random.default_rng(0).uniform(1.2, 2.5, FILES)


def scored(shift: float, spread: float, seed: int, heard: str) -> list[Scored]:
    rng = np.random.default_rng(seed)
    values = BASE + shift + spread * rng.standard_normal(FILES)
    return [Scored(f"u{i:02d}.wav", dict.fromkeys(METRICS, float(v)), heard=heard) for i, v in enumerate(values)]


def write_results(folder: Path, shift: float = 0.4) -> Path:
    """A sweep of one set with three systems, two files to hear, a missing value, and recognised words."""
    folder.mkdir()
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper_normalizer")
    systems = {
        "noisy": scored(0, 0, 0, "red green"),
        "better": scored(shift, 0.1, 1, "red blue green"),
        "equal": scored(0.0, 0.3, 2, "red"),
    }
    systems["equal"][0] = Scored("u00.wav", {}, {"file": "the enhanced signal is silent"})
    said = {f"u{i:02d}": "red blue green" for i in range(FILES)}
    words = {label: recognition(found, said) for label, found in systems.items()}
    paths: dict[str, dict[str, str]] = {}
    for name in ("u01.wav", "u02.wav"):
        for label in ("clean", *systems):
            target = folder / f"{label}_{name}"
            audio.write(target, voice(0.7)[None] * (0.5 if label == "better" else 1), RATE)
            paths.setdefault(name, {})[label] = target.name
    content = report.results("sweep", systems, {"command": "semamba benchmark </script> better"}, words, paths)
    content["factors"] = {
        f"u{i:02d}.wav": {"snr": 5.0 * (i % 3), "noise": "rain" if i % 2 else "hum"} for i in range(FILES)
    }
    content["cost"] = {"better": {"parameters": 1000, "macs": 2e8, "latency_ms": 32.0}}
    report.write_json(folder / "sweep.json", content)
    (folder / "matrix.json").write_text("{}")
    return folder


def test_records_of_one_set_are_merged(tmp_path: Path) -> None:
    first = write_results(tmp_path / "a")
    other = json.loads((first / "sweep.json").read_text())
    other["systems"] = {"third": other["systems"]["better"], "noisy": other["systems"]["noisy"]}
    report.write_json(tmp_path / "other.json", other)
    (record,) = read_records([first, tmp_path / "other.json"])
    assert list(record.content["systems"]) == ["noisy", "better", "equal", "third"]
    changed = write_results(tmp_path / "b", shift=0.3)
    with pytest.raises(SemambaError, match="give the older one with --against"):
        read_records([first, changed])


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read as JSON"), ("{}", "not results of")])
def test_what_is_no_record(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SemambaError, match=message):
        read_records([tmp_path / "x.json"])
    (tmp_path / "x.json").unlink()
    with pytest.raises(SemambaError, match="no results here"):
        read_records([tmp_path])


def test_data(tmp_path: Path) -> None:
    records = read_records([write_results(tmp_path / "a")])
    data = build(records, "Title", clips=1)
    assert [m["key"] for m in data["metrics"]] == [*METRICS, "wer"]
    (part,) = data["sets"]
    assert len(part["audio"]) == 1 and set(part["audio"]["u01.wav"]) == {"clean", "noisy", "better", "equal"}
    assert len(data["clips"]) == 4 and data["changes"] is None
    assert part["systems"]["equal"]["words"]["u05.wav"] == [0, 2, 0, 3]
    assert build(records, "", clips=0)["clips"] == []


def test_what_got_worse(tmp_path: Path) -> None:
    before, after = (read_records([write_results(tmp_path / n, shift)]) for n, shift in (("a", 0.5), ("b", 0.2)))
    found = compare(before, after)
    verdicts = {(row["system"], row["metric"]): row["verdict"] for row in found["means"]}
    assert verdicts["better", "pesq"] == "worse" and verdicts["noisy", "pesq"] == verdicts["equal", "stoi"] == "same"
    (row,) = [r for r in found["means"] if (r["system"], r["metric"]) == ("better", "pesq")]
    assert row["change"] == pytest.approx(-0.3) and row["count"] == FILES
    assert found["files"] and all(row["system"] == "better" for row in found["files"])
    assert not [row for row in compare(before, before)["means"] if row["verdict"] != "same"]


def test_bundle_keeps_modules_apart(tmp_path: Path) -> None:
    (tmp_path / "one-part.js").write_text("const x = 1;\nexport const value = x;\nexport function f() { return x; }\n")
    (tmp_path / "two.js").write_text('import { value, f as g } from "./one-part.js";\nconst x = value + g();\n')
    text = page_bundle.bundle([tmp_path / "one-part.js", tmp_path / "two.js"])
    assert "return { value, f };" in text and "const { value, f: g } = $one_part;" in text
    assert "import" not in text and "export" not in text


def test_page_holds_nothing_from_elsewhere(tmp_path: Path) -> None:
    records = read_records([write_results(tmp_path / "a")])
    write_report(tmp_path / "r.html", records, "<b>Title</b>", 2)
    text = (tmp_path / "r.html").read_text()
    assert "&lt;b&gt;Title" in text and not re.search(r"\{\{\w+\}\}", text) and "</script> better" not in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    from tests.browser import browser

    root = tmp_path_factory.mktemp("report")
    write_report(root / "r.html", read_records([write_results(root / "a")]), "Measured", 2)
    with browser(width=1200, height=900) as driver:
        driver.get((root / "r.html").as_uri())
        yield driver, root / "a"


def rows(driver: Any, selector: str) -> dict[str, list[str]]:
    script = "return [...document.querySelectorAll(arguments[0])].map(r => [...r.children].map(c => c.textContent))"
    return {cells[0]: cells[1:] for cells in driver.execute_script(script, f"{selector} tbody tr")}


def test_leaderboard_in_the_browser(page: tuple[Any, Path]) -> None:
    driver, folder = page
    errors = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors
    board = rows(driver, "#board")
    document = json.loads((folder / "sweep.json").read_text())["systems"]["better"]
    low, high = document["interval"]["pesq"]
    assert board["better"][0] == f"{document['mean']['pesq']:.3f} ± {(high - low) / 2:.3f} ▲"
    assert "▲" not in board["equal"][0] and "▼" not in board["equal"][0]
    errors = {name: cells[-2] for name, cells in board.items()}
    assert errors["noisy"].startswith("33.3") and errors["better"].startswith("0.0") and "▲" in errors["better"]
    assert board["equal"][-1] == "23"


def test_choices_sorting_and_plots(page: tuple[Any, Path]) -> None:
    driver, _ = page
    assert driver.execute_script("return document.querySelectorAll('#scatter circle').length") == 2 * FILES - 1
    assert driver.execute_script("return document.querySelectorAll('#factor path').length") == 3
    assert driver.execute_script("return document.querySelector('#cost').hidden") is False
    order = "return [...document.querySelectorAll('#board tbody th')].map(c => c.textContent)"
    assert driver.execute_script(order)[0] == "better"
    driver.execute_script("document.querySelector('#board thead button').click()")
    assert driver.execute_script(order) == ["better", "equal", "noisy"]
    choose = "const s = document.querySelector('#baseline'); s.value = 'better'; s.dispatchEvent(new Event('change'))"
    driver.execute_script(choose)
    assert "▼" in rows(driver, "#board")["noisy"][0]
    assert "silent" in driver.execute_script("return document.querySelector('#about').textContent")


def test_listening_by_keyboard(page: tuple[Any, Path]) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    driver, _ = page
    driver.execute_script("document.querySelector('#listen').scrollIntoView()")
    wait = WebDriverWait(driver, 20)
    wait.until(lambda d: d.execute_script("return document.querySelectorAll('#pictures canvas').length") == 4)
    bright = """const c = document.querySelector("#pictures canvas");
        const pixels = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        return pixels.filter((v, i) => i % 4 === 0 && v > 100).length"""
    wait.until(lambda d: d.execute_script(bright) > 50)
    body = driver.find_element("tag name", "body")
    body.send_keys("1")
    heard = "return document.querySelector('#versions [aria-checked=true]').textContent"
    assert driver.execute_script(heard) == "noisy"
    body.send_keys(Keys.ARROW_RIGHT)
    wait.until(lambda d: d.execute_script("return document.querySelector('#clip').value") == "1")
