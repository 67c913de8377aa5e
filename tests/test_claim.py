"""A claim on a run: one at a time, and what a killed one left goes."""

from masterkey.benchmarks.claim import claim
from masterkey.benchmarks.store import WEIGHTS_NAME, ResultStore


def test_a_claim_removes_what_a_killed_process_left(tmp_path):
    store = ResultStore(tmp_path)
    leftovers = [
        store.root / "runs" / ".abc.json.1a2b3c4d.partial",
        store.root / "failed" / ".abc.json.1a2b3c4d.partial",
        store.root / "partial" / "abc.pt.partial",
        store.kept_path("abc") / f".{WEIGHTS_NAME}.1a2b3c4d.partial",
    ]
    others = [store.root / "runs" / ".abd.json.1a2b3c4d.partial", store.root / "runs" / "abc.json"]
    for path in (*leftovers, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with claim(store, "abc") as mine, claim(store, "abc") as twice:
        assert (mine, twice) == (True, False)
    assert [path.exists() for path in leftovers] == [False] * 4
    assert all(path.exists() for path in others)
    assert not list((store.root / "partial").iterdir())  # the lock is gone too
