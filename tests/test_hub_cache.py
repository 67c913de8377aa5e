"""The caches: two processes at once, a process that is killed, a cache that cannot be written."""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_cases import add_timm, publish, state_dict
from hub_server import HubServer
from safetensors.torch import save
from samples import GOOD, small_bank, with_metadata

from masterkey.bank import Bank
from masterkey.errors import BankFormatError, NewerFormatError, UnreadableError
from masterkey.format import read
from masterkey.hub.access import Access
from masterkey.hub.bank_cache import BankCache
from masterkey.hub.remote_file import HubFile

COMMAND = [sys.executable, "-m", "masterkey.cli.main"]
PATIENCE = 300


def large_bank() -> Bank:
    """A bank of some megabytes, so that a download of it takes a while on a slow line."""
    return small_bank().repeated(3000)


def names(hub: HubServer) -> list[str]:
    return [publish(hub, small_bank()), add_timm(hub)[0]]


@pytest.mark.parametrize("which", [0, 1], ids=["published", "extracted"])
def test_two_processes_at_once(hub, tmp_path, which):
    """Each file of a bank leaves the server once; both processes get the bank."""
    name = names(hub)[which]
    environment = hub.environment(tmp_path / "home")
    started = [
        subprocess.Popen(
            [*COMMAND, "verify", name], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    found = [process.communicate(timeout=PATIENCE) for process in started]
    assert [process.returncode for process in started] == [0, 0], found
    assert found[0][0] == found[1][0]
    ranges = [request.range for request in hub.log("/lfs/", "GET")]
    assert len(ranges) == len(set(ranges)), "nothing was fetched twice"


@pytest.mark.parametrize("which", [0, 1], ids=["published", "extracted"])
def test_a_process_that_is_killed(hub, tmp_path, which):
    home = tmp_path / "home"
    if which == 0:
        name = publish(hub, large_bank())
        fault = hub.fault("model.safetensors", "stalled", host="cdn", times=1)
    else:
        name = add_timm(hub)[0]
        fault = hub.fault("model.safetensors", "stalled", host="cdn", skip=1, times=1)
    process = subprocess.Popen(
        [*COMMAND, "verify", name], env=hub.environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert fault.stalls.wait(PATIENCE)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert not [path for path in home.rglob("*.safetensors") if path.is_file()], "no half bank"
    done = hub.run("verify", name, home=home)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("which", [0, 1], ids=["published", "extracted"])
def test_a_cache_that_cannot_be_made(hub, online, tmp_path, which):
    """The bank is used without being kept, and says so; root may write to any folder, so a file is in the way."""
    name = names(hub)[which]
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    code = f"from masterkey import Bank\nprint(len(Bank.from_pretrained({name!r}, cache_dir={str(blocked)!r})))"
    done = online.python(code)
    assert done.code == 0, done.err
    assert int(done.out) > 0
    assert "not kept" in done.err
    assert blocked.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
@pytest.mark.parametrize("which", [0, 1], ids=["published", "extracted"])
def test_a_cache_that_cannot_be_written(hub, online, tmp_path, which):
    name, new = names(hub)[which], names(hub)[which]
    cache = tmp_path / "cache"
    read_bank = "from masterkey import Bank\nprint(len(Bank.from_pretrained({!r}, cache_dir={!r})))"
    assert online.python(read_bank.format(name, str(cache))).code == 0
    folders = [path for path in [cache, *cache.rglob("*")] if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert online.python(read_bank.format(name, str(cache))).code == 0
        assert online.python(read_bank.format(new, str(cache))).code == 0
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_what_is_kept_is_a_bank_and_nothing_else(hub, online, tmp_path):
    repo_id, _ = add_timm(hub)
    commit = hub.store.repositories[repo_id].refs["main"]
    code = f"from masterkey import Bank\nBank.from_pretrained({repo_id!r}, cache_dir={str(tmp_path)!r})"
    assert online.python(code).code == 0
    folder = tmp_path / "masterkey" / repo_id.replace("/", "--")
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    bank = f"{commit}/timm.depthwise.safetensors"
    assert {path for path in kept if not path.endswith(".lock")} == {bank, "refs/main"}
    assert (folder / "refs/main").read_text() == commit
    assert read(folder / bank)[1].source.revision == commit
    assert save(state_dict()) not in (folder / bank).read_bytes()
    assert not list(Path(tmp_path).rglob("*.partial"))


# -- what is removed, and what is not -------------------------------------------------------------------------

WHICH = ("0" * 40, "a.safetensors", "depthwise")
DAMAGED = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
NEWER = with_metadata(lambda about: about.update(format=2))


@contextmanager
def no_file_can_be_opened():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cached(folder: Path, data: bytes, local_files_only: bool = False) -> tuple[BankCache, Path]:
    cache = BankCache("org/r", Access(folder, local_files_only=local_files_only))
    path = cache.path(*WHICH)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return cache, path


def test_a_file_that_only_cannot_be_read_now_stays(tmp_path):
    cache, path = cached(tmp_path, GOOD)
    with no_file_can_be_opened(), pytest.raises(UnreadableError, match="Too many open files"):
        cache.load_or_make(*WHICH, lambda: pytest.fail("it is there"))
    assert path.read_bytes() == GOOD
    assert cache.load(*WHICH).sha256 == small_bank().sha256


def test_a_file_of_a_newer_format_stays(tmp_path):
    cache, path = cached(tmp_path, NEWER)
    with pytest.raises(NewerFormatError, match="a newer masterkey may read it"):
        cache.load_or_make(*WHICH, lambda: pytest.fail("it is there"))
    assert path.read_bytes() == NEWER


def test_a_damaged_file_is_made_anew(tmp_path):
    cache, path = cached(tmp_path, DAMAGED)
    assert cache.load_or_make(*WHICH, small_bank).sha256 == small_bank().sha256
    assert path.read_bytes() == GOOD


def test_a_damaged_file_stays_where_it_cannot_be_fetched_again(tmp_path):
    cache, path = cached(tmp_path, DAMAGED, local_files_only=True)
    with pytest.raises(BankFormatError, match=r"damaged.*not fetched again, because only local files were asked for"):
        cache.load_or_make(*WHICH, lambda: pytest.fail("no network may be asked"))
    assert path.read_bytes() == DAMAGED


def test_a_cache_that_may_not_be_looked_into(tmp_path):
    cache, path = cached(tmp_path / "cache", GOOD)
    (tmp_path / "cache").chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # who may look anywhere
            os.seteuid(65534)
        assert cache.load_or_make(*WHICH, small_bank).sha256 == small_bank().sha256
    finally:
        os.seteuid(user)
        (tmp_path / "cache").chmod(0o755)
    assert path.read_bytes() == GOOD


@pytest.mark.parametrize("which", [0, 1], ids=["published", "extracted"])
def test_a_process_that_can_open_no_file_removes_nothing(hub, online, which):
    name = names(hub)[which]
    name += f"@{hub.store.repositories[name].refs['main']}"
    assert online("download", name).code == 0
    code = (
        "import resource\nfrom masterkey import Bank, MasterkeyError\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))\n"
        f"try: Bank.from_pretrained({name!r})\n"
        "except MasterkeyError as error: print(error)\n"
        "finally: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))"
    )
    done = online.python(code)
    assert done.code == 0, done.err
    assert "Too many open files" in done.out
    hub.requests.clear()
    assert online("verify", name).code == 0
    assert hub.requests == [], "it is still there"


def test_a_hash_that_cannot_be_compared_is_a_sentence(tmp_path, monkeypatch):
    """Root may read any file, so a folder stands where the file should."""
    monkeypatch.setattr(HubFile, "_announced", SimpleNamespace(etag="0" * 64))
    with pytest.raises(UnreadableError, match="Is a directory"):
        HubFile("org/r", "main", "model.safetensors", Access()).is_as_published(tmp_path)
