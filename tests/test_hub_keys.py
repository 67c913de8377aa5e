"""Keys with their assignment by a name of the Hub: what is asked for, offline, and damaged or missing tables."""

import pytest
import torch
from hub_cases import new_repo
from samples import make_bank

from masterkey.distill import Distilled, distill
from masterkey.folder import bank_files

KEYS = distill(make_bank("source").select(kernel=7), 2, "kmeans", random=None)
TABLE = KEYS.assignment.to_csv()


@pytest.fixture
def repo_id(hub) -> str:
    name = new_repo()
    hub.add(name, {**bank_files(KEYS.bank), "assignment.csv": TABLE})
    return name


def load(name: str, folder, **about: object) -> str:
    """Code that loads keys by name and saves them into a folder."""
    return (
        "from masterkey.distill import Distilled\n"
        f"Distilled.from_pretrained({name!r}, **{about!r}).save_pretrained({str(folder)!r})"
    )


def test_by_name_the_second_time_one_question_and_with_a_commit_none(hub, repo_id, online, offline, tmp_path):
    done = online.python(load(repo_id, tmp_path / "first"))
    assert done.code == 0, done.err
    found = Distilled.from_pretrained(tmp_path / "first")
    assert found.bank.sha256 == KEYS.bank.sha256 and found.assignment.to_csv() == TABLE
    assert torch.equal(found.assignment.key, KEYS.assignment.key)
    commit = hub.store.repositories[repo_id].refs["main"]
    hub.requests.clear()
    assert online.python(load(repo_id, tmp_path / "again")).code == 0
    assert [(request.method, request.path) for request in hub.requests] == [("GET", f"/api/models/{repo_id}")]
    hub.requests.clear()
    for worker, about in ((online, {"revision": commit}), (online, {"local_files_only": True}), (offline, {})):
        done = worker.python(load(repo_id, tmp_path / "cached", **about))
        assert done.code == 0, done.err
    assert worker.python(load(f"{repo_id}@{commit}", tmp_path / "pinned")).code == 0
    assert hub.requests == []
    assert (tmp_path / "pinned" / "assignment.csv").read_bytes() == TABLE


def test_a_table_that_is_not_the_banks_is_refused(hub, online, tmp_path):
    other, bare, whole = new_repo(), new_repo(), new_repo()
    hub.add(other, {**bank_files(KEYS.bank), "assignment.csv": TABLE.replace(b",0,", b",1,", 1)})
    hub.add(bare, bank_files(KEYS.bank))
    hub.add(whole, {**bank_files(make_bank("source")), "assignment.csv": TABLE})
    for name, words in (
        (other, f"hf://{other}/assignment.csv is damaged or of another bank"),
        (bare, f"{bare} holds no assignment.csv; the bank alone can still be used"),
        (whole, "was not distilled"),
        ("scale-space-8", "was not distilled"),
    ):
        done = online.python(load(name, tmp_path / "never"))
        assert done.code != 0 and words in done.err
    assert not (tmp_path / "never").exists()


def test_a_table_damaged_in_the_cache_is_fetched_again(hub, repo_id, online, offline, tmp_path):
    assert online.python(load(repo_id, tmp_path / "first")).code == 0
    (cached,) = online.home.rglob(f"*{repo_id.replace('/', '--')}/snapshots/*/assignment.csv")
    cached.resolve().write_bytes(TABLE[:-3])
    done = offline.python(load(repo_id, tmp_path / "offline"))
    assert done.code != 0 and "is damaged or of another bank" in done.err
    done = online.python(load(repo_id, tmp_path / "again"))
    assert done.code == 0, done.err
    assert (tmp_path / "again" / "assignment.csv").read_bytes() == cached.read_bytes() == TABLE


def test_offline_with_the_keys_alone_in_the_cache(hub, repo_id, online, offline, tmp_path):
    assert online("download", repo_id).code == 0
    done = offline.python(load(repo_id, tmp_path / "never"))
    assert done.code != 0
    assert f"hf://{repo_id}/assignment.csv is not in the cache, and HF_HUB_OFFLINE is set" in done.err
