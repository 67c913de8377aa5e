"""The caches: two processes at once, a process that is killed, a cache that cannot be written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hub_cases import add_timm, publish, state_dict
from hub_server import HubServer
from safetensors.torch import save
from samples import small_bank

from masterkey.bank import Bank
from masterkey.format import read

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
