"""Extraction from every kind of checkpoint file, damaged and hostile ones too."""

import argparse
import codecs
import hashlib
import os
import pickle
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from samples import DEPTHWISE, state
from torch import nn

from masterkey.bank import Bank
from masterkey.errors import BankFormatError, CheckpointError, MasterkeyError
from masterkey.stand_ins import StandIn, stand_ins


def refused(path: str | Path, kind: type[MasterkeyError] = CheckpointError) -> str:
    """Check that extraction from ``path`` is refused in one printable sentence that names it, and return that."""
    with pytest.raises(kind) as caught:
        Bank.from_checkpoint(path)
    sentence = str(caught.value)
    assert Path(path).name[:50] in sentence
    assert sentence.isprintable()
    assert "weights_only" not in sentence, "torch's advice to switch the protection off must not get through"
    assert len(sentence) < 500 + len(str(path))
    return sentence


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", ".bin", ".ckpt", ".PTH"])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files(tmp_path, suffix, legacy):
    path = tmp_path / f"my.net{suffix}"
    torch.save(state(), path, _use_new_zipfile_serialization=not legacy)
    bank = Bank.from_checkpoint(path, licence="MIT", base_model="me/net", datasets=["pets"])
    assert list(bank.layers) == DEPTHWISE
    assert all(torch.equal(bank.layers[name], state()[name]) for name in DEPTHWISE)
    about = bank.metadata
    assert (about.name, about.order, about.licence) == ("my.net", "registration", "MIT")
    assert (about.base_model, about.datasets) == ("me/net", ("pets",))
    assert about.source.sha256_verified == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (about.source.kind, about.source.file, about.source.entry) == ("file", path.name, None)


@pytest.mark.parametrize("entry", ["state_dict", "model", "model_ema", "state_dict_ema", "model_state_dict", "net"])
def test_wrapped_torch_files(tmp_path, entry):
    torch.save({"epoch": 3, entry: OrderedDict(state()), "optimizer": {"lr": 0.1}}, tmp_path / "x.pth")
    bank = Bank.from_checkpoint(tmp_path / "x.pth")
    assert list(bank.layers) == DEPTHWISE
    assert bank.metadata.source.entry == entry


def test_one_data_set_may_be_named_as_a_text(tmp_path):
    torch.save(state(), tmp_path / "x.pth")
    assert Bank.from_checkpoint(tmp_path / "x.pth", datasets="pets").metadata.datasets == ("pets",)


def test_averaged_weights_come_first_if_there_are_any(tmp_path):
    averaged = {name: tensor * 2 for name, tensor in state().items()}
    torch.save({"state_dict": state(), "model_ema": averaged}, tmp_path / "x.pth")
    assert Bank.from_checkpoint(tmp_path / "x.pth").metadata.source.entry == "model_ema"
    for nothing in ({}, None, {"decay": 0.99}, [1]):
        torch.save({"state_dict": state(), "model_ema": nothing}, tmp_path / "x.pth")
        assert Bank.from_checkpoint(tmp_path / "x.pth").metadata.source.entry == "state_dict"


def test_safetensors_in_natural_order(tmp_path):
    save_file(state(), tmp_path / "net.safetensors", metadata={"format": "pt"})
    bank = Bank.from_checkpoint(tmp_path / "net.safetensors")
    assert list(bank.layers) == [DEPTHWISE[0], "stages.2.dw.weight", "stages.2.row.weight", "stages.10.dw.weight"]
    assert bank.metadata.order == "natural"


def test_natural_order_of_odd_names(tmp_path):
    names = ["a2", "a10", "a02", "a²", "²1", "a" + "9" * 900, "٣", "b"]
    save_file({f"{name}.weight": torch.ones(2, 1, 3, 3) for name in names}, tmp_path / "net.safetensors")
    assert len(Bank.from_checkpoint(tmp_path / "net.safetensors").layers) == len(names)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_of_other_floats(tmp_path, dtype, suffix):
    converted = {name: tensor.to(dtype) for name, tensor in state().items()}
    save = torch.save if suffix == "pth" else save_file
    save(converted, tmp_path / f"net.{suffix}")
    bank = Bank.from_checkpoint(tmp_path / f"net.{suffix}")
    for name in DEPTHWISE:
        assert bank.layers[name].dtype == torch.float32
        assert torch.equal(bank.layers[name], converted[name].float())


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("mcunet-320kb-1mb_imagenet.pth", (1128, 744, 1544)),
        ("proxyless-w0.25-r112_imagenet.pth", (80, 696, 1128)),
        ("proxyless-w0.3-r176_imagenet.pth", (112, 768, 1488)),
    ],
)
def test_real_checkpoints(data_dir, tmp_path, file, counts):
    bank = Bank.from_checkpoint(data_dir / "checkpoints" / file, licence="MIT")
    assert bank.counts() == dict(zip(((3, 3), (5, 5), (7, 7)), counts, strict=True))
    assert len(bank) == sum(counts)
    numbers = [int(name.split(".")[1]) for name in bank.layers]
    assert numbers == sorted(numbers)
    loaded = Bank.from_pretrained(bank.save_pretrained(tmp_path))
    assert (loaded.metadata, loaded.sha256) == (bank.metadata, bank.sha256)


# -- the text file of key filters ---------------------------------------------------------------------------


def test_real_key_filters(data_dir):
    path = data_dir / "checkpoints" / "convnextv2_tiny_8_master_key_filters.txt"
    bank = Bank.from_checkpoint(path, licence="CC-BY-4.0")
    assert (list(bank.layers), bank.counts()) == (["keys.weight"], {(7, 7): 8})
    assert bank.metadata.source.kind == "text"
    numbers = [float(word) for line in path.read_text().splitlines() if "Filter" not in line for word in line.split()]
    assert np.array_equal(bank.layers["keys.weight"].flatten(), np.array(numbers, dtype=np.float32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "1 2 3\n",
        "hello\nFilter 1:\n1 2\n3 4\n",
        "Filter 1:\n",
        "Filter 1:\n\nFilter 2:\n",
        "Filter 1:\n1 2\n3\n",
        "Filter 1:\n1 2\n3 4\nFilter 2:\n1 2 3\n4 5 6\n",
        "Filter 1:\n1 2\n3 four\n",
        "Filter 1:\n1,2\n3,4\n",
        "Filter one:\n1 2\n3 4\n",
        "\ud800".encode("utf-16", "surrogatepass"),
        b"Filter 1:\n\xff\xfe\n",
        b"\0" * 100,
        "<!DOCTYPE html>",
    ],
)
def test_malformed_key_filters(tmp_path, text):
    (tmp_path / "keys.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "is not a text file of filters" in refused(tmp_path / "keys.txt")


def test_a_mark_of_windows_editors_before_key_filters_is_passed_over(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text("Filter 1:\n1 2 3\n", encoding="utf-8-sig")
    assert Bank.from_checkpoint(path).layers["keys.weight"].flatten().tolist() == [1, 2, 3]


def test_key_filters_of_other_numbers_and_kinds(tmp_path):
    path = tmp_path / "keys.TXT"
    path.write_text("Filter 1:\n1 2 3\n")
    bank = Bank.from_checkpoint(path)
    assert (bank.counts(), bank.metadata.source.kind) == ({(1, 3): 1}, "text")
    with pytest.raises(CheckpointError, match="no pointwise filters"):
        Bank.from_checkpoint(path, "pointwise")
    for number in ("nan", "inf", "-Infinity", "1e999", "1e39"):
        path.write_text(f"Filter 1:\n1 {number} 3\n")
        assert "holds 1 weights that are NaN or infinite" in refused(path, BankFormatError)


# -- pickles that want more than to be read -----------------------------------------------------------------


class Call:
    """Pickles as a call of ``function``, which unpickling would make."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def write_zip(content: object, path: Path) -> None:
    torch.save(content, path)


def write_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_bare(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def write_bare_protocol_2(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_bare, write_bare_protocol_2])
@pytest.mark.parametrize("where", ["beside", "inside", "alone"])
@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_code_in_a_pickle_does_not_run(tmp_path, write, where, suffix):
    proof = tmp_path / "it-ran"
    for evil in (
        Call(os.system, f"touch {proof}"),
        Call(exec, f"open({str(proof)!r}, 'w')"),
        Call(os.mkdir, str(proof)),
    ):
        content = {
            "beside": {"state_dict": state(), "extra": evil},
            "inside": {**state(), "evil.weight": evil},
            "alone": evil,
        }
        write(content[where], tmp_path / f"net.{suffix}")
        assert "was refused, none of it was run" in refused(tmp_path / f"net.{suffix}")
        assert not proof.exists()


def test_the_proof_would_have_been_seen(tmp_path):
    """That the files of the test above do run their call when they are read without protection."""
    write_zip({"state_dict": state(), "extra": Call(os.mkdir, str(tmp_path / "it-ran"))}, tmp_path / "net.pth")
    torch.load(tmp_path / "net.pth", weights_only=False)
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (nn.Conv2d(1, 1, 1), "torch.nn.modules.conv.Conv2d"),
        (Call(np.frombuffer, b"ab"), "numpy.frombuffer"),
        (Call(codecs.decode, b"ff", "hex"), "_codecs.decode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_what_a_pickle_wanted_is_named(tmp_path, write, extra, named):
    write({"state_dict": state(), "extra": extra}, tmp_path / "net.pth")
    sentence = refused(tmp_path / "net.pth")
    assert f"its pickle calls for {named}" in sentence
    assert "plain state dict or a .safetensors file" in sentence


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_what_training_scripts_save_beside_the_weights(tmp_path, write):
    """As timm's train.py does: its options, and whatever a script calls its best accuracy."""
    about = argparse.Namespace(lr=0.1, data=Path("pets"), mean=np.zeros(3), inner=types.SimpleNamespace(best=1))
    content = {"epoch": 3, "args": about, "best": np.float64(0.5), "state_dict": OrderedDict(state())}
    write(content, tmp_path / "net.pth")
    bank = Bank.from_checkpoint(tmp_path / "net.pth")
    assert all(torch.equal(bank.layers[name], state()[name]) for name in DEPTHWISE)
    with pytest.raises(pickle.UnpicklingError):  # torch's own list of what is safe is as it was
        torch.load(tmp_path / "net.pth", weights_only=True)


class Odd:
    """Pickles as any call, with any arguments and state: what a hostile file can put behind a name that is let in."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.made = function, arguments, state

    def __reduce__(self) -> tuple:
        return self.made


def test_a_stand_in_is_empty_whatever_it_is_made_of(tmp_path):
    inner = Odd(argparse.Namespace, OrderedDict(a=1), state={"__class__": "x", "lr": 1, "nested": np.zeros(2)})
    write_zip({"args": inner}, tmp_path / "net.pth")
    with stand_ins():
        read = torch.load(tmp_path / "net.pth", weights_only=True)["args"]
    assert type(read) is StandIn and vars(read) == {}


def test_what_the_caller_calls_safe_is_read_as_it_is(tmp_path):
    write_zip({"args": argparse.Namespace(lr=0.1), "best": np.float64(0.5)}, tmp_path / "net.pth")
    with torch.serialization.safe_globals([argparse.Namespace]):
        before = {*torch.serialization.get_safe_globals()}
        with stand_ins():
            read = torch.load(tmp_path / "net.pth", weights_only=True)
        assert {*torch.serialization.get_safe_globals()} == before
    assert (read["args"].lr, type(read["best"])) == (0.1, StandIn)


def test_several_threads_read_at_once(tmp_path):
    write_zip({"args": argparse.Namespace(lr=0.1), "state_dict": state()}, tmp_path / "net.pth")
    before = {*torch.serialization.get_safe_globals()}
    with ThreadPoolExecutor(4) as pool:
        banks = list(pool.map(lambda _: Bank.from_checkpoint(tmp_path / "net.pth").sha256, range(40)))
    assert len(set(banks)) == 1
    assert {*torch.serialization.get_safe_globals()} == before


@pytest.mark.parametrize("all_of_them", [False, True])
def test_weights_that_are_numpy_arrays_are_refused_by_name(tmp_path, all_of_them):
    arrays = {name: value.numpy() for name, value in state().items() if all_of_them or name == DEPTHWISE[1]}
    write_zip({"epoch": 3, "state_dict": {**state(), **arrays}}, tmp_path / "net.pth")
    sentence = refused(tmp_path / "net.pth")
    assert f"and {len(arrays) - 1} others are numpy arrays, and only tensors are read" in sentence


def test_environment_cannot_switch_the_protection_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    write_zip({"state_dict": state(), "extra": Call(os.mkdir, str(tmp_path / "it-ran"))}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth")
    assert not (tmp_path / "it-ran").exists()


def test_bare_pickles_say_what_to_do(tmp_path):
    write_bare({name: tensor.numpy() for name, tensor in state().items()}, tmp_path / "net.pkl")
    assert "a bare pickle, which only running it could read" in refused(tmp_path / "net.pkl")


def test_torchscript(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)).save(tmp_path / "net.pt")
    assert "TorchScript" in refused(tmp_path / "net.pt")


# -- files that are damaged, or something else --------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_torch_files(tmp_path, legacy):
    path = tmp_path / "net.pth"
    torch.save(state(), path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    for length in [*range(0, 60, 7), *range(60, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        refused(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"just text", "no file that torch.save wrote"),
        (b"PK\x03\x04" + bytes(100), "not a sound torch checkpoint"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "it ends too early"),
    ],
)
def test_something_else_as_torch_file(tmp_path, data, words):
    for suffix in ("pth", "pkl", "pt", "tar"):
        (tmp_path / f"net.{suffix}").write_bytes(data)
        assert words in refused(tmp_path / f"net.{suffix}")


@pytest.mark.parametrize("data", [b"", b"<html>", bytes(50), (2**40).to_bytes(8, "little") + b"{}"])
def test_something_else_as_safetensors(tmp_path, data):
    (tmp_path / "net.safetensors").write_bytes(data)
    refused(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    "content", [[1, 2], "text", None, {}, {"a": 1}, {"my_weights": state()}, {"state_dict": {"a": 1}}, 7]
)
def test_torch_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    assert "holds no state dict" in refused(tmp_path / "net.pth")


def test_torch_file_that_claims_terabytes(tmp_path):
    torch.save({"a.weight": torch.ones(1, 1, 1, 1).expand(10**7, 1, 1000, 1000)}, tmp_path / "net.pth")
    assert (tmp_path / "net.pth").stat().st_size < 10_000
    assert "claims 10,000,000,000,000 weights" in refused(tmp_path / "net.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity(tmp_path, suffix, value):
    broken = state()
    broken["stages.2.dw.weight"][3, 0, 1, :2] = value
    save = torch.save if suffix == "pth" else save_file
    save(broken, tmp_path / f"net.{suffix}")
    sentence = refused(tmp_path / f"net.{suffix}", BankFormatError)
    assert "layer stages.2.dw.weight holds 2 weights that are NaN or infinite" in sentence
    save({**broken, "stages.2.dw.weight": torch.ones(16, 8)}, tmp_path / f"net.{suffix}")
    assert len(Bank.from_checkpoint(tmp_path / f"net.{suffix}").layers) == 3


def test_no_filters_inside(tmp_path):
    plain = {"a.weight": torch.ones(8, 3, 3, 3), "b.weight": torch.ones(4, 4), "c.weight": torch.ones(1, 1, 3, 3)}
    torch.save(plain, tmp_path / "net.pth")
    assert "holds 3 tensors, but no depthwise filters" in refused(tmp_path / "net.pth")
    save_file(plain, tmp_path / "net.safetensors")
    assert "holds 3 tensors, but no depthwise filters" in refused(tmp_path / "net.safetensors")


def test_missing_files_folders_and_unknown_suffixes(tmp_path):
    assert "does not exist" in refused(tmp_path / "net.pth")
    (tmp_path / "folder.pth").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is not a regular file" in refused(tmp_path / "pipe.pth")
    (tmp_path / "net.h5").write_bytes(b"x")
    assert "unknown kind of checkpoint '.h5'" in refused(tmp_path / "net.h5")
    (tmp_path / "net").write_bytes(b"x")
    assert "unknown kind of checkpoint ''" in refused(tmp_path / "net")


@pytest.mark.parametrize("path", ["a" * 10_000 + ".pth", "~nobody-here/x.pth", "a\0b.pth", "", "https://x.org/a.pth"])
def test_impossible_paths(path):
    with pytest.raises(MasterkeyError) as caught:
        Bank.from_checkpoint(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory) -> dict[Path, bytes]:
    folder = tmp_path_factory.mktemp("fuzz")
    small = {"s.0.weight": torch.ones(3, 1, 3, 3), "s.1.weight": torch.ones(2, 1, 2, 2)}
    write_zip({"state_dict": small}, folder / "zip.pth")
    write_legacy({"state_dict": small}, folder / "legacy.pth")
    save_file(small, folder / "net.safetensors")
    (folder / "keys.txt").write_text("Filter 1:\n1 2\n3 4\nFilter 2:\n1 2\n3 4\n")
    return {path: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=300, deadline=None)
@given(choice=st.data())
def test_only_our_errors_come_out(sound_files, choice):
    path = choice.draw(st.sampled_from(sorted(sound_files)))
    data = sound_files[path]
    for _ in range(choice.draw(st.integers(1, 3))):
        at, drop = choice.draw(st.integers(0, len(data))), choice.draw(st.integers(0, 5))
        data = data[:at] + choice.draw(st.binary(max_size=5)) + data[at + drop :]
    path.write_bytes(data)
    try:
        Bank.from_checkpoint(path)
    except MasterkeyError as error:
        assert path.name in str(error)
        assert str(error).isprintable()
