"""A corpus on Ray: a local cluster of two nodes, one of which is killed in the middle, and what Ray must not change."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semamba import audio
from semamba.errors import SemambaError
from semamba.inference.corpus import DONE, FAILED, KEPT, Work
from semamba.inference.plan import plan

FILES, SECONDS, RATE = 100, 2.0, 16000


@pytest.fixture
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    tools = pytest.importorskip("ray.cluster_utils")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    made = tools.Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    made.second = made.add_node(**node)
    before = signal.getsignal(signal.SIGTERM)  # Ray takes it
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()
    signal.signal(signal.SIGTERM, before)


def test_a_node_dies_and_the_run_completes(cluster: Any, tmp_path: Path) -> None:
    from semamba.inference.cluster import run_ray
    from semamba.inference.corpus import rows_of

    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    rng = np.random.default_rng(0)
    for index in range(FILES):
        audio.write(source / f"u{index:03d}.wav", 0.1 * rng.standard_normal((1, int(SECONDS * RATE)), np.float32), RATE)
    (source / "broken.wav").write_bytes(b"RIFF0000")
    seen: dict[Path, tuple[int, int]] = {}

    def kill_in_the_middle() -> None:
        deadline = time.monotonic() + 600  # workers start slowly on a busy machine
        while time.monotonic() < deadline:
            done = [path for path in out.glob("u*.wav")] if out.is_dir() else []
            if len(done) >= FILES // 3:
                seen.update((path, (path.stat().st_ino, path.stat().st_mtime_ns)) for path in done)
                cluster.remove_node(cluster.second, allow_graceful=False)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_in_the_middle, daemon=True)
    killer.start()
    rows = list(run_ray(rows_of(plan([str(source)], str(out)))[0], Work()))
    killer.join()

    assert FILES > len(seen) >= FILES // 3, "the node was not killed in the middle"
    statuses = {Path(row["source"]).name: row["status"] for row in rows}
    assert len(rows) == len(statuses) == FILES + 1  # every file is reported once
    assert statuses.pop("broken.wav") == FAILED and set(statuses.values()) <= {DONE, KEPT}
    assert len(list(out.iterdir())) == FILES  # complete, and no temporary file is left
    for path, identity in seen.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == identity  # written once
    for path in list(out.iterdir())[::40]:
        assert audio.read(path)[0].shape == (1, int(SECONDS * RATE))
    again = list(run_ray(rows_of(plan([str(source)], str(out)))[0], Work()))
    assert {row["status"] for row in again} == {KEPT, FAILED}


def test_a_wrong_model_is_refused_before_ray_starts(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from semamba.inference.cluster import run_ray

    rows = [{"source": str(tmp_path / "a.wav"), "target": str(tmp_path / "b.wav")}]
    with pytest.raises(SemambaError, match="no-such-model"):
        list(run_ray(rows, Work("no-such-model")))
    assert not ray.is_initialized()


def test_termination_stays_with_the_caller(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from semamba.inference.cluster import run_ray

    before, during = signal.getsignal(signal.SIGTERM), []
    rows = [{"source": str(tmp_path / "missing.wav"), "target": str(tmp_path / "out.wav")}]
    for row in run_ray(rows, Work()):
        assert row["status"] == FAILED
        during.append(signal.getsignal(signal.SIGTERM))
    assert [*during, signal.getsignal(signal.SIGTERM)] == [before, before]
