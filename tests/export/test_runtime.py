"""The runtime without torch gives what PyTorch gives: arrays, files, streams; and torch is nowhere in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from semamba import Streamer, checkpoint
from semamba.errors import SemambaError
from semamba.export.runtime import OnnxEnhancer, OnnxStreamer, main
from semamba.inference.enhance import Enhancer

TOLERANCE = 1e-5  # promised are 1e-4


def noisy(channels: int, seconds: float, rate: int = 16_000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 300 * time) * (np.sin(2 * np.pi * 2 * time) > 0)
    noise = 0.05 * np.random.default_rng(0).standard_normal((channels, time.size))
    return (tone + noise).astype(np.float32)


@pytest.mark.parametrize("name", ["step", "whole"])
@pytest.mark.parametrize(("channels", "rate"), [(1, 16_000), (2, 48_000), (1, 8_000)])
def test_arrays(name: str, channels: int, rate: int, exported: dict[str, Path]) -> None:
    wave = noisy(channels, 0.8, rate)
    expected = Enhancer(checkpoint.load(exported[name]), "cpu")(wave, rate)
    result = OnnxEnhancer(exported[f"{name}-onnx"])(wave, rate)
    assert np.abs(expected - wave).max() > 0.01
    np.testing.assert_allclose(result, expected, atol=TOLERANCE)


def test_options_and_types(exported: dict[str, Path]) -> None:
    wave = (noisy(1, 0.5)[0] * 32767).astype(np.int16)
    settings = {"attenuation_limit": 6.0, "mix": 0.7}
    expected = Enhancer(checkpoint.load(exported["step"]), "cpu")(wave, **settings)
    result = OnnxEnhancer(exported["step-onnx"], threads=2)(wave, **settings)
    assert result.dtype == np.int16 and np.abs(result.astype(int) - expected).max() <= 1


def test_chunks(exported: dict[str, Path]) -> None:
    """A long signal goes through in overlapping pieces, as in PyTorch."""
    from semamba.inference.engine import Options

    options, wave, results = Options(chunk_seconds=0.5), noisy(1, 1.3), []
    for enhancer in (Enhancer(checkpoint.load(exported["whole"]), "cpu"), OnnxEnhancer(exported["whole-onnx"])):
        engine = enhancer.engine(1, 16_000, options)
        results.append(np.concatenate([engine.push(wave), engine.finish()], axis=1))
    np.testing.assert_allclose(results[1], results[0], atol=TOLERANCE)


@pytest.mark.parametrize("mode", ["exact", "fixed"])
def test_streams(mode: str, exported: dict[str, Path]) -> None:
    wave, results = noisy(2, 0.9, 48_000), []
    theirs = Streamer(Enhancer(checkpoint.load(exported["step"]), "cpu"), 48_000, 2, mode)  # type: ignore[arg-type]
    ours = OnnxStreamer(exported["step-onnx"], 48_000, 2, mode)
    assert ours.latency_samples == theirs.latency_samples
    for stream in (theirs, ours, ours):  # the last time after `flush`, from a fresh start
        parts = [stream.feed(block) for block in np.array_split(wave, [1, 500, 501, 20_000], axis=1)]
        results.append(np.concatenate([*parts, stream.flush()], axis=1))
    np.testing.assert_allclose(results[1], results[0], atol=TOLERANCE)
    np.testing.assert_array_equal(results[2], results[1])


def test_reset_forgets(exported: dict[str, Path]) -> None:
    stream, wave = OnnxStreamer(exported["step-onnx"]), noisy(1, 0.3)[0]
    first = stream.feed(wave)
    stream.reset()
    np.testing.assert_array_equal(stream.feed(wave), first)


def test_what_is_not_finite_does_not_stay(exported: dict[str, Path]) -> None:
    wave = noisy(1, 1.0)[0]
    wave[4000] = np.nan
    with pytest.warns(UserWarning, match="1 samples were NaN"):
        assert np.isfinite(OnnxEnhancer(exported["step-onnx"])(wave)).all()


def test_files_and_the_command(exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wave = noisy(2, 0.6, 44_100)
    soundfile.write(tmp_path / "in.wav", wave.T, 44_100, subtype="FLOAT")
    folder = str(exported["step-onnx"])
    assert main([str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"), "--model", folder]) == 0
    result, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    expected = Enhancer(checkpoint.load(exported["step"]), "cpu")(wave, 44_100)
    assert rate == 44_100
    np.testing.assert_allclose(result.T, expected, atol=TOLERANCE)
    assert main([str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"), "--model", folder]) == 1
    assert "error: " in capsys.readouterr().err


def test_says_what_is_wrong(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SemambaError, match="no model.json"):
        OnnxEnhancer(tmp_path)
    with pytest.raises(SemambaError, match="only as float32, float16, int8"):
        OnnxEnhancer(exported["step-onnx"], "float64")
    with pytest.raises(SemambaError, match="needs the future"):
        OnnxStreamer(exported["whole-onnx"])
    shutil.copytree(exported["step-onnx"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(SemambaError, match="is not the file that model.json describes"):
        OnnxEnhancer(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(SemambaError, match="'form' is missing; export the model anew"):
        OnnxEnhancer(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(SemambaError, match="export the model anew"):
        OnnxEnhancer(tmp_path)


_WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {allowed_not!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from semamba.export.runtime import OnnxStreamer, main
code = main(sys.argv[1:])
stream = OnnxStreamer(sys.argv[-1], 48000, mode="fixed")
import numpy
assert stream.feed(numpy.ones(4800, "f")).shape == (4800,) and stream.flush().size == stream.latency_samples
print(sorted(name for name in sys.modules if name.split(".")[0] in {allowed_not!r}))
sys.exit(code)
"""


def test_where_torch_is_absent(exported: dict[str, Path], tmp_path: Path) -> None:
    """Nor anything else that the package needs but numpy, onnxruntime and soundfile."""
    absent = {"torch", "soxr", "safetensors", "yaml", "pydantic", "typer", "rich", "scipy", "onnx", "onnxscript"}
    wave = noisy(1, 0.4, 48_000)[0]
    soundfile.write(tmp_path / "in.wav", wave, 48_000, subtype="FLOAT")
    arguments = [tmp_path / "in.wav", "-o", tmp_path / "out.wav", "--model", exported["step-onnx"]]
    script = _WITHOUT_TORCH.format(allowed_not=absent)
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    expected = Enhancer(checkpoint.load(exported["step"]), "cpu")(wave, 48_000)
    np.testing.assert_allclose(soundfile.read(tmp_path / "out.wav", dtype="float32")[0], expected, atol=TOLERANCE)
