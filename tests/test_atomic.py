"""Saving: a bank's files are written all or not at all, whatever stops the writer."""

import os
import random
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from samples import BANK, small_bank

from masterkey.atomic import write_all_atomically, write_atomically
from masterkey.bank import Bank
from masterkey.errors import BankFormatError, SaveError
from masterkey.extract import from_state_dict
from masterkey.metadata import Metadata, Source


def test_what_a_reader_would_refuse_is_not_written(tmp_path):
    for text in ("a\nb", "\x1b[2J", "\udc80"):
        with pytest.raises(BankFormatError):
            BANK.renamed(text).save_pretrained(tmp_path / "out")
    source = Source("file", "x", file="../x.pth")
    about = Metadata("x", "depthwise", source, BANK.metadata.layers, "natural")
    with pytest.raises(BankFormatError, match="outside its folder"):
        Bank(BANK.layers, about).save_pretrained(tmp_path / "out")
    about = Metadata(
        "x", "depthwise", Source("a", "b"), BANK.metadata.layers, "natural", transformations=({"op": {1}},)
    )
    with pytest.raises(BankFormatError, match="cannot be written"):
        Bank(BANK.layers, about).save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@contextmanager
def file_size_limit(size: int):
    """A disk that is full after ``size`` bytes of any file; Python ignores the signal, so writing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def mounted(folder: Path, *arguments: str):
    done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("bank", [BANK, small_bank(7)], ids=["the same bank", "another"])
@pytest.mark.parametrize("size", [0, 100, 1000, 4096])
def test_file_size_limit_half_way_through(tmp_path, bank, size):
    before = contents(BANK.save_pretrained(tmp_path / "old"))
    assert max(map(len, before.values())) > 4096
    with file_size_limit(size):
        with pytest.raises(SaveError, match="File too large; nothing was changed"):
            bank.save_pretrained(tmp_path / "old")
        with pytest.raises(SaveError, match="File too large; nothing was changed"):
            bank.save_pretrained(tmp_path / "new" / "folder")
    assert contents(tmp_path / "old") == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    bank.save_pretrained(tmp_path / "old")
    assert Bank.from_pretrained(tmp_path / "old").sha256 == bank.sha256


def test_full_disk_half_way_through(tmp_path):
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        before = contents(BANK.save_pretrained(tmp_path))
        large = from_state_dict({"a.weight": torch.randn(2000, 1, 7, 7)}, name="large")
        with pytest.raises(SaveError, match="No space left on device; nothing was changed"):
            large.save_pretrained(tmp_path)
        with pytest.raises(SaveError, match="No space left on device; nothing was changed"):
            write_atomically(tmp_path / "model.safetensors", bytes(10**6))
        assert contents(tmp_path) == before


def test_read_only_file_system(tmp_path):
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=256k", "tmpfs"):
        before = contents(BANK.save_pretrained(tmp_path))
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with pytest.raises(SaveError, match="Read-only file system; nothing was changed"):
            small_bank(1).save_pretrained(tmp_path)
        with pytest.raises(SaveError, match="Read-only file system; nothing was changed"):
            small_bank(1).save_pretrained(tmp_path / "new")
        assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["config.json", "README.md", "model.safetensors"])
def test_a_file_that_cannot_be_replaced(tmp_path, name):
    """The other files are in place by then: they are put back."""
    before = contents(BANK.save_pretrained(tmp_path))
    if not shutil.which("chattr"):
        pytest.skip("no chattr here")
    done = subprocess.run(["chattr", "+i", tmp_path / name], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot make a file immutable here: {done.stderr.strip()}")
    try:
        with pytest.raises(SaveError, match=rf"{name}': Operation not permitted; nothing was changed"):
            small_bank(1).save_pretrained(tmp_path)
        assert contents(tmp_path) == before
    finally:
        subprocess.run(["chattr", "-i", tmp_path / name], check=True)


def test_a_move_that_fails_is_undone(tmp_path, monkeypatch):
    """As above, where no file can be made immutable, and without hard links."""
    (tmp_path / "a").write_bytes(b"old")
    replace = Path.replace

    def fail_at_last(self: Path, target: Path) -> Path:
        if target.name == "c" and self.suffix == ".partial":
            raise OSError(5, "Input/output error", str(self), None, str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_last)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    with pytest.raises(SaveError, match="/c': Input/output error"):
        write_all_atomically({tmp_path / "a": b"new", tmp_path / "b": b"new", tmp_path / "c": b"new"})
    assert contents(tmp_path) == {"a": b"old"}


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        BANK.save_pretrained(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["README.md", "config.json", "atlas.png", "model.safetensors"])
def test_a_folder_is_in_the_way(tmp_path, part):
    (tmp_path / part).mkdir()
    with pytest.raises(SaveError, match="a folder of that name is in the way"):
        BANK.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [part]


def test_unwritable_targets(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    targets = [tmp_path / "file", tmp_path / "file" / "below", Path("/proc/masterkey"), Path("/dev/null/x")]
    targets += [tmp_path / "nul\0nul", tmp_path / "nul\0nul" / "below", tmp_path / ("n" * 300), tmp_path / "\ud800"]
    for target in targets:
        with pytest.raises(SaveError, match="nothing was changed") as caught:
            BANK.save_pretrained(target)
        assert str(caught.value).isprintable()
    assert contents(tmp_path) == {"file": b"x"}


def test_new_files_follow_the_umask_and_old_ones_are_replaced(tmp_path):
    mask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "sub" / "x", b"1")
        write_atomically(tmp_path / "sub" / "x", b"2")
    finally:
        os.umask(mask)
    assert (tmp_path / "sub" / "x").read_bytes() == b"2"
    assert (tmp_path / "sub" / "x").stat().st_mode & 0o777 == 0o640
    assert len(list((tmp_path / "sub").iterdir())) == 1


def test_kill_in_the_middle_of_saving(tmp_path):
    """A process saves one bank over another as fast as it can and is killed: the folder always loads."""
    script = (
        "import os, random, signal, sys, time, torch\n"
        "from masterkey.bank import Bank\n"
        "from masterkey.extract import from_state_dict\n"
        "torch.set_num_threads(1)\n"
        "os.fsync = lambda _: None  # a kill loses nothing that was written, and more saves meet one\n"
        "states = [{'a.weight': torch.full((400, 3, 7, 7), float(i))} for i in range(2)]\n"
        "banks = [from_state_dict(state, 'dense', name='x') for state in states]\n"
        "known, chance = {bank.sha256 for bank in banks}, random.Random(0)\n"
        "banks[0].save_pretrained(sys.argv[1])\n"
        "seen = set()\n"
        "for _ in range(25):\n"
        "    reader, writer = os.pipe()\n"
        "    child = os.fork()\n"
        "    while not child:\n"
        "        banks[1].save_pretrained(sys.argv[1]); banks[0].save_pretrained(sys.argv[1]); os.write(writer, b'.')\n"
        "    os.close(writer); os.read(reader, 1)  # on a busy machine it takes a while to begin\n"
        "    time.sleep(chance.uniform(0.001, 0.05))\n"
        "    os.kill(child, signal.SIGKILL); os.waitpid(child, 0); os.close(reader)\n"
        "    seen.add(Bank.from_pretrained(sys.argv[1]).sha256)\n"
        "assert seen == known, seen\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "bank"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "bank").iterdir()}
    assert {name for name in names if not name.startswith(".")} == {"README.md", "config.json", "model.safetensors"}


def test_readers_during_saving_never_see_half_a_file(tmp_path):
    banks = [small_bank(seed) for seed in range(2)]
    known = {bank.sha256 for bank in banks}
    banks[0].save_pretrained(tmp_path)
    chance = random.Random(0)
    for _ in range(5):
        with (tmp_path / "model.safetensors").open("rb") as held:
            banks[chance.randrange(2)].save_pretrained(tmp_path)
            copied = tmp_path.parent / "held.safetensors"
            copied.write_bytes(held.read())
        assert Bank.from_pretrained(copied).sha256 in known


def test_devices_and_pipes_are_not_replaced_and_links_are_followed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SaveError, match="it is a device or a pipe"):
        write_atomically(pipe, b"x")
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    link.symlink_to(target)
    write_atomically(link, b"first")
    write_atomically(link, b"second")
    assert link.is_symlink() and target.read_bytes() == b"second"


def test_another_bank_in_the_same_folder_leaves_nothing_of_its_own(tmp_path):
    """Its licence, assignment or curve would stand beside this one's filters."""
    joined = replace(BANK.metadata, licence="MIT AND my-own-licence")
    Bank(BANK.layers, joined).save_pretrained(tmp_path)
    for name in ("assignment.csv", "curve.csv", "curve.png"):
        (tmp_path / name).write_text("keys,explained,error\n")
    (tmp_path / "notes.txt").write_text("mine")
    Bank(BANK.layers, joined).save_pretrained(tmp_path)  # the same bank: all of it stays
    assert (tmp_path / "assignment.csv").exists()
    small_bank().renamed("other").save_pretrained(tmp_path)
    own = {"config.json", "README.md", "atlas.png", "model.safetensors", "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == own


def test_a_curve_of_something_else_is_left_alone(tmp_path):
    for name in ("curve.csv", "curve.png"):
        (tmp_path / name).write_text("epoch,accuracy\n")
    for bank in (small_bank(), small_bank(1)):
        bank.save_pretrained(tmp_path)
    assert all((tmp_path / name).read_text() == "epoch,accuracy\n" for name in ("curve.csv", "curve.png"))


def test_a_link_to_itself_is_one_sentence(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SaveError, match="a link leads to itself"):
        write_atomically(tmp_path / "loop", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_a_folder_in_the_home_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    BANK.save_pretrained("~/bank")
    assert Bank.from_pretrained("~/bank").sha256 == BANK.sha256 and (tmp_path / "bank").is_dir()
