"""A finished run that is done again."""

import json

import pytest
from sweep_files import make_pictures, tiny_experiment

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.scripts.repeat import repeats
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.sweep import run_sweep


def test_the_same_bytes_or_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))
    store = ResultStore(tmp_path / "results")
    arms = [{"name": "bank", "bank": "scale-space-8"}]
    run_sweep(tiny_experiment(make_pictures(tmp_path / "pictures"), seeds=[0], lrs=[1e-3], arms=arms), store)
    (run_id,) = store.run_ids()
    assert repeats(run_id, store)

    path = store.run_path(run_id)
    result = json.loads(path.read_bytes())
    result["metrics"]["curve"][-1]["train_loss"] += 1e-12
    path.write_text(json.dumps(result))
    assert not repeats(run_id, store)

    result["machine"]["device"] = "NVIDIA H200"
    path.write_text(json.dumps(result))
    with pytest.raises(BenchmarkError, match="made on NVIDIA H200"):
        repeats(run_id, store)

    with pytest.raises(BenchmarkError, match="no run 0123456789ab"):
        repeats("0123456789ab", store)
