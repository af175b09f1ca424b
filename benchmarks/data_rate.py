"""How fast training material is made on one core, against how fast one core trains on it.

    python benchmarks/data_rate.py MANIFEST.csv

Processor seconds of one thread, so a busy machine changes little. Needs a manifest whose train split has speech.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from semamba import config
from semamba.data.bank import SpeechBank
from semamba.data.dataset import MixDataset
from semamba.data.manifest import Manifest
from semamba.data.mixing import MixConfig
from semamba.data.recorded import RecordedPairs
from semamba.data.shards import read_shard, write_shards
from semamba.train.recipe import Recipe
from semamba.train.step import start, train_step

BATCH, CROP = 8, 2.0


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Processor seconds of one call, after one to warm up."""
    work()
    begun = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - begun) / repeats


def main() -> None:
    torch.set_num_threads(1)
    manifest = Manifest.read(sys.argv[1])
    mix = MixConfig(crop_seconds=CROP)
    begun = time.process_time()
    bank = SpeechBank.load(manifest)
    hours = sum(bank.seconds.values()) / 3600
    print(f"files read: {3600 * hours / (time.process_time() - begun):,.0f} x real time ({hours:.1f} h)")

    with tempfile.TemporaryDirectory() as folder:
        packed = write_shards(manifest, Path(folder), shard_mb=64)
        entries = [entry for entry in packed if entry.shard]
        first = [entry for entry in entries if entry.shard == entries[0].shard]
        took = seconds(lambda: list(read_shard(entries[0].shard, first, 16000)), 1)
        print(f"shards read: {sum(entry.seconds for entry in first) / took:,.0f} x real time")

    data = MixDataset(bank, mix)
    print(f"mixed: {BATCH / seconds(lambda: data.batch(0, BATCH), 30):,.0f} items of {CROP:g} s each second")
    if bank.pairs:
        pairs = RecordedPairs(bank, mix)
        rng = np.random.default_rng(0)
        print(f"recorded pairs: {1 / seconds(lambda: pairs.sample(rng), 300):,.0f} items each second")

    recipe = config.parse(Recipe, {"name": "rate", "model": {"preset": "causal-small"}, "train": {"batch_size": BATCH}})
    training = start(recipe, torch.device("cpu"))
    batch = data.batch(0, BATCH)
    rate = BATCH / seconds(lambda: train_step(training, *batch, 0.5), 10)
    print(f"trained on, causal-small: {rate:,.1f} items each second")


if __name__ == "__main__":
    main()
