"""What goes wrong on the way from the Hub: one sentence, no traceback, and never a half bank."""

import re
import time
from pathlib import Path

import pytest
from hub_cases import add_timm, new_repo, publish, state_dict, torch_file
from hub_server import HubServer
from hub_worker import Done
from safetensors.torch import save
from samples import small_bank

from masterkey.bank import Bank
from masterkey.errors import BankFormatError

BANK = small_bank()


def sentence(done: Done, *names: str) -> str:
    """Check that a command refused in one sentence that names what was asked for, and return that."""
    assert (done.code, done.out) == (1, ""), done
    *warnings, last = done.err.splitlines()
    assert last.startswith("masterkey: ")
    assert all(warning.startswith("removed from the cache: ") for warning in warnings)
    assert len(last) < 600
    assert any(name in last for name in names), last
    return last


def sound_files(home: Path) -> int:
    """Count the banks below a cache; each must be whole, and a symbolic link must lead somewhere."""
    count = 0
    for path in home.rglob("*.safetensors"):
        assert path.exists(), f"{path} leads nowhere"
        try:
            Bank.from_pretrained(path)
        except BankFormatError as error:
            assert "is a safetensors file but not a bank" in str(error)
        count += 1
    return count


# name of what is fetched: a published bank, whose file is downloaded whole, and filters that are read in parts
def published(hub: HubServer) -> tuple[str, str]:
    repo_id = publish(hub, BANK)
    return repo_id, repo_id


def extracted(hub: HubServer) -> tuple[str, str]:
    repo_id, _ = add_timm(hub)
    return repo_id, repo_id


EVERYWHERE = {"methods": ("GET", "HEAD")}


@pytest.mark.parametrize("make", [published, extracted])
@pytest.mark.parametrize(
    ("kind", "about", "words"),
    [
        ("status", {"code": 404, "host": "cdn"}, "there is no such file"),
        ("status", {"code": 401, "host": "cdn"}, "may not be read"),
        ("status", {"code": 403, "host": "cdn"}, "may not be read"),
        ("status", {"code": 503, "host": "cdn"}, r"a problem of its own \(503\)"),
        ("status", {"code": 503, "host": "hub", **EVERYWHERE}, r"a problem of its own \(503\) and still did after 4"),
        ("redirect loop", {"host": "cdn"}, "too many redirects"),
        ("redirect loop", {"host": "hub", **EVERYWHERE}, "too many redirects"),
        ("wrong size", {"host": "cdn"}, "were announced|did not arrive whole"),
    ],
)
def test_lasting_faults(hub, online, hub_home, make, kind, about, words):
    name, repo_id = make(hub)
    hub.fault(f"*{repo_id}/model.safetensors" if about["host"] == "cdn" else "*model.safetensors", kind, **about)
    assert re.search(words, sentence(online("download", name), repo_id))
    sound_files(hub_home)
    hub.clear()
    assert online("verify", name).code == 0, "the next call works"


@pytest.mark.parametrize("make", [published, extracted])
def test_a_repository_that_is_not_described(hub, online, make):
    name, repo_id = make(hub)
    for kind, about, words in (
        ("status", {"code": 500}, r"a problem of its own \(500\)"),
        ("status", {"code": 429, "headers": {"Retry-After": "0"}}, r"asks for fewer requests \(429\)"),
        ("html", {}, "what answered is not the Hub"),
        ("redirect loop", {}, "too many redirects"),
        ("cut", {}, "the connection broke"),
    ):
        hub.fault(f"api/models/{repo_id}", kind, **about)
        assert re.search(words, sentence(online("info", name), repo_id)), kind
        hub.clear()
    assert online("info", name).code == 0


@pytest.mark.parametrize("make", [published, extracted])
def test_a_page_instead_of_the_file(hub, online, hub_home, make):
    name, repo_id = make(hub)
    hub.fault("model.safetensors", "html", host="cdn")
    found = sentence(online("download", name), repo_id)
    assert "a web page came instead" in found or "did not arrive whole" in found
    hub.clear()
    hub.fault("model.safetensors", "html", host="hub", **EVERYWHERE)
    found = sentence(online("download", name), repo_id)
    assert "what answered is not the Hub" in found or "a web page came instead" in found
    hub.clear()
    sound_files(hub_home)
    assert online("verify", name).code == 0


@pytest.mark.parametrize("make", [published, extracted])
@pytest.mark.parametrize("kind", ["cut", "status"])
def test_passing_faults(hub, online, make, kind):
    """Two in a row, of a connection cut in mid-file or a busy server, are waited for."""
    name, _ = make(hub)
    code = {"code": 429, "headers": {"Retry-After": "0"}} if kind == "status" else {}
    hub.fault("model.safetensors", kind, times=2, host="cdn", **code)
    done = online("download", name)
    assert done.code == 0, done.err
    assert len(hub.log("/lfs/")) >= 3


def test_wrong_bytes_of_the_right_size(hub, online, hub_home):
    for at in (0.0, 0.5, 1.0):
        repo_id = publish(hub, BANK)
        hub.fault("model.safetensors", "wrong bytes", host="cdn", at=at)
        assert "arrived damaged" in sentence(online("download", repo_id), repo_id)
        sound_files(hub_home)
        hub.clear()
        assert online("verify", repo_id).code == 0, "nothing of it was kept"


def test_wrong_bytes_of_a_checkpoint_that_is_read_whole(hub, online):
    repo_id = new_repo()
    hub.add(repo_id, {"a.safetensors": save(state_dict())})
    hub.fault("a.safetensors", "no range", host="cdn", times=1)
    hub.fault("a.safetensors", "wrong bytes", host="cdn", at=0.9)
    assert "arrived damaged" in online("info", f"hf://{repo_id}/a.safetensors").err
    hub.clear()
    hub.fault("a.safetensors", "no range", host="cdn", times=1)
    done = online("info", f"hf://{repo_id}/a.safetensors", "--json")
    assert done.code == 0, done.err
    blob = hub.store.repositories[repo_id].commits[hub.store.repositories[repo_id].refs["main"]]["a.safetensors"]
    assert f'"source sha256": "{blob.sha256}"' in done.out


def test_a_bank_that_was_published_broken(hub, online):
    repo_id = new_repo()
    data = bytearray(next(v for k, v in _files().items() if k == "model.safetensors"))
    data[-1] ^= 1
    hub.add(repo_id, {"model.safetensors": bytes(data)})
    for _ in range(2):
        assert "its filters hash to" in sentence(online("info", repo_id), repo_id)


def _files() -> dict[str, bytes]:
    from masterkey.folder import bank_files

    return bank_files(BANK)


@pytest.mark.parametrize("make", [published, extracted])
@pytest.mark.parametrize(
    ("path", "kind", "about"),
    [
        ("*api/models", "silent", {}),
        ("model.safetensors", "silent", {"host": "hub", "methods": ("HEAD",)}),
        ("model.safetensors", "silent", {"host": "cdn"}),
        ("model.safetensors", "stalled", {"host": "cdn"}),
    ],
)
def test_a_server_that_never_answers(hub, hurried, make, path, kind, about):
    name, repo_id = make(hub)
    hub.fault(path, kind, **about)
    start = time.monotonic()
    found = sentence(hurried("download", name), repo_id)
    assert "no answer within the time limit" in found
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in found
    assert time.monotonic() - start < 100
    hub.clear()
    assert hurried("verify", name).code == 0


@pytest.mark.parametrize("make", [published, extracted])
def test_offline_with_a_cold_cache(hub, offline, make):
    name, repo_id = make(hub)
    found = sentence(offline("info", name), repo_id)
    assert f"{name} is not in the cache, and HF_HUB_OFFLINE is set" in found
    assert f"masterkey download {name}" in found
    assert hub.requests == []


@pytest.mark.parametrize("make", [published, extracted])
def test_a_hub_that_is_down_does_no_harm_to_what_is_cached(hub, online, hurried, make):
    name, _ = make(hub)
    assert online("download", name).code == 0
    for kind, about in (("status", {"code": 503}), ("silent", {}), ("cut", {})):
        hub.fault("*api/models", kind, **about)
        done = hurried("verify", name)
        assert done.code == 0, done.err
        assert "the cached commit" in done.err
        hub.clear()


def test_what_is_damaged_in_the_cache_is_fetched_again(hub, online, offline, hub_home):
    for name, repo_id in (published(hub), extracted(hub)):
        assert online("download", name).code == 0
        folder = repo_id.replace("/", "--")
        (path,) = [p for p in hub_home.rglob("*.safetensors") if folder in str(p)]
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        hub.requests.clear()
        sentence(offline("verify", name), folder, repo_id)
        sentence(online("verify", name, "--local-files-only"), folder, repo_id)
        assert hub.requests == []
        assert path.read_bytes() == data, "what cannot be fetched again is not removed"
        assert online("verify", name).code == 0
        assert offline("verify", name).code == 0


def test_a_whole_file_that_is_damaged_in_the_cache_is_fetched_again(hub, online, hub_home):
    repo_id = new_repo()
    hub.add(repo_id, {"old.pth": torch_file(state_dict(), legacy=True)})
    code = f"from masterkey import Bank\nprint(Bank.from_checkpoint('hf://{repo_id}/old.pth', {{!r}}).sha256)"
    first = online.python(code.format("depthwise"))
    assert first.code == 0, first.err
    (path,) = [path for path in hub_home.rglob("old.pth") if repo_id.replace("/", "--") in str(path)]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert online.python(code.format("all")).out == first.out
    assert [request.status for request in hub.log("/lfs/", "GET")] == [206, 200, 206, 200]
