"""Models x sets: right scores, nothing measured twice, a crash loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semamba import audio, checkpoint, models
from semamba.errors import SemambaError
from semamba.evaluation import matrix
from semamba.evaluation.cache import FILE, ScoreCache, digest
from semamba.evaluation.matrix import Benchmark, table
from semamba.evaluation.sets import open_set
from semamba.inference.enhance import load
from semamba.metrics.dnsmos import RATINGS
from semamba.metrics.evaluate import METRICS, Measures, Scored, score
from semamba.models.causal import CausalConfig

pytest.importorskip("pesq")
pytest.importorskip("pystoi")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    checkpoint.save(folder, models.build(CausalConfig(channels=8, d_model=8, sub_bands=4, blocks=1, layers=1)), {})
    return folder


def test_scores_cache_and_tables(pairs: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [open_set(f"mine={pairs}")]
    (record,) = Benchmark([str(model)], tmp_path, jobs=0, device="cpu", keep=1).run(sets, "the command")
    noisy = record["systems"]["noisy"]
    clean, mixture, rate = sets[0].items[0].load()
    assert noisy["files"]["u0.wav"]["pesq"] == pytest.approx(score(clean, mixture, rate)["pesq"], abs=1e-6)
    ours = record["systems"]["tiny"]["files"]["u0.wav"]
    made = load(str(model), "cpu")(mixture, rate)
    assert ours == pytest.approx(score(clean, made, rate), abs=1e-6)
    assert ours["si_sdr"] != pytest.approx(noisy["files"]["u0.wav"]["si_sdr"], abs=1e-3)
    assert noisy["left_out"] == {"alone.wav": {"file": sets[0].left_out["alone.wav"]}}
    assert noisy["count"]["pesq"] == 3 and record["seconds"]["u0.wav"] == pytest.approx(1.2)
    assert json.loads((tmp_path / "mine.json").read_text()) == json.loads(json.dumps(record))
    kept = record["audio"]["u0.wav"]
    assert set(kept) == {"clean", "noisy", "tiny"} and audio.read(tmp_path / kept["noisy"])[0].shape == (1, 19200)
    entry = json.loads((tmp_path / "matrix.json").read_text())["sets"][0]["systems"]
    assert entry["tiny"]["real_time_factor"] > 0 and entry["noisy"]["left_out"] == 1
    rows = table([record], "pesq")
    assert rows[0] == ["system", "mine"] and rows[1][0] == "noisy" and "±" in rows[1][1]
    assert table([record], "real_time_factor")[1][1] == "" and table([record], "wer")[1][1] == ""

    monkeypatch.setattr(matrix, "load", lambda *_: pytest.fail("a second run loads no model"))
    again = Benchmark([str(model)], tmp_path, jobs=0, device="cpu")
    (second,) = again.run(sets, "the command")
    assert again.cache.hits == 6 and second["systems"] == record["systems"]


def test_clean_speech_is_rated_where_no_reference_is_needed(pairs: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("speechmos")
    sets = [open_set(f"mine={pairs}", limit=1)]
    (record,) = Benchmark([], tmp_path, Measures(dnsmos=True), jobs=0).run(sets)
    clean, noisy = record["systems"]["clean"], record["systems"]["noisy"]
    assert set(clean["mean"]) == set(RATINGS) and set(noisy["mean"]) == {*METRICS, *RATINGS}
    assert table([record], "pesq")[1:] == [["clean", ""], ["noisy", table([record], "pesq")[2][1]]]


def test_other_weights_are_measured_anew(pairs: Path, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "tiny"
    checkpoint.save(other, models.build(CausalConfig(channels=8, d_model=8, sub_bands=4, blocks=1, layers=1)), {})
    sets = [open_set(f"mine={pairs}", limit=1)]
    Benchmark([str(model)], tmp_path / "out", jobs=0, device="cpu").run(sets)
    second = Benchmark([str(other)], tmp_path / "out", jobs=0, device="cpu")
    second.run(sets)
    assert second.cache.hits == 1  # the noisy input


def test_times_of_another_device_are_not_taken_over(
    pairs: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [open_set(f"mine={pairs}", limit=1)]
    Benchmark([str(model)], tmp_path, jobs=0, device="cpu").run(sets)
    monkeypatch.setattr(matrix, "choose_device", lambda _: "cuda")
    second = Benchmark([str(model)], tmp_path, jobs=0, device="cpu")
    second.run(sets)
    assert second.cache.hits == 1  # the noisy input, which takes no time anywhere


def test_a_bad_file_is_named_and_the_rest_goes_on(pairs: Path, tmp_path: Path) -> None:
    for part in ("clean", "noisy"):
        (tmp_path / part).mkdir()
        for name in ("u0.wav", "u1.wav"):
            (tmp_path / part / name).write_bytes((pairs / part / name).read_bytes())
    (tmp_path / "noisy/u0.wav").write_bytes(b"RIFF")
    (record,) = Benchmark([], tmp_path / "out", jobs=0).run([open_set(f"mine={tmp_path}")])
    noisy = record["systems"]["noisy"]
    assert set(noisy["files"]) == {"u1.wav"} and "u0.wav" in noisy["left_out"]["u0.wav"]["file"]


def test_two_of_one_name_are_refused(pairs: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(SemambaError, match="two have the same name"):
        Benchmark([str(model), str(model)], tmp_path)
    sets = [open_set(f"mine={pairs}", 1)] * 2
    with pytest.raises(SemambaError, match="two have the same name"):
        Benchmark([], tmp_path).run(sets)


def test_cache_survives_a_cut_line(tmp_path: Path) -> None:
    ScoreCache(tmp_path).put("a", Scored("x", {"pesq": 1.5}, {"stoi": "why"}, "heard"), 0.25)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"key": "b", "sco')
    cache = ScoreCache(tmp_path)
    assert cache.get("a", "y") == (Scored("y", {"pesq": 1.5}, {"stoi": "why"}, "heard"), 0.25)
    assert cache.get("b", "y") is None
    cache.put("c", Scored("z"), 0.0)
    assert ScoreCache(tmp_path).get("c", "z") is not None


def test_digest_tells_samples_apart() -> None:
    wave = np.arange(4, dtype=np.float32)
    assert digest(wave, 1) == digest(wave.copy(), 1)
    assert len({digest(wave), digest(wave.astype(np.float64)), digest(wave[::-1]), digest(wave, 1), digest(b"x")}) == 5
