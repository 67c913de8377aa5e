"""The bank file: what a sound one is, and one test per way a file can be wrong."""

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from samples import (
    BANK,
    GOOD,
    HEADER,
    ROOT,
    START,
    WEIGHTS,
    Json,
    assemble,
    refused,
    signed,
    with_header,
    with_metadata,
)

from masterkey import format as bank_format
from masterkey.bank import Bank, join
from masterkey.errors import BankFormatError, CheckpointError, MasterkeyError, UnknownNameError, UnreadableError
from masterkey.extract import from_state_dict
from masterkey.metadata import Layer, Metadata, Source, canonical_json


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def header_only(monkeypatch):
    """Whatever is refused under this fixture is refused before a single weight is read."""
    monkeypatch.setattr(bank_format, "load", lambda data: pytest.fail("the weights were read"))


# -- a sound file -------------------------------------------------------------------------------------------


def test_roundtrip(tmp_path):
    loaded = Bank.from_pretrained(BANK.save_pretrained(tmp_path))
    assert loaded.metadata == BANK.metadata
    assert list(loaded.layers) == list(BANK.layers)
    assert all(torch.equal(loaded.layers[name], BANK.layers[name]) for name in BANK.layers)
    assert loaded.sha256 == BANK.sha256
    assert bank_format.encode(loaded.layers, loaded.metadata) == GOOD


def test_every_field_survives(tmp_path):
    layer = Layer("stages.2.é漢 weight", (1, 3), 4, groups=2, stride=(2, 1), stage=2, factor=1 / 3)
    source = Source("timm", "timm/x", "abc", "sub/model.safetensors", "model_ema", "0" * 64, "f" * 64)
    steps = ({"op": "unknown to us", "nested": {"a": [1, 2.5, None, True, "é"]}},)
    about = Metadata("naïve 名", "dense", source, (layer,), "forward", "base/model", ("a", "b"), "MIT", steps)
    bank = Bank({layer.name: torch.randn(4, 5, 1, 3)}, about)
    loaded = Bank.from_pretrained(bank.save_pretrained(tmp_path))
    assert loaded.metadata == about
    assert loaded.metadata.layers[0].factor == 1 / 3


def test_config_is_the_metadata_of_the_file(tmp_path):
    BANK.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == HEADER["__metadata__"]["masterkey"] + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "atlas.png",
        "config.json",
        "model.safetensors",
    ]


def test_it_is_a_plain_safetensors_file(tmp_path):
    BANK.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == BANK.layers.keys()
    assert all(torch.equal(tensors[name], BANK.layers[name]) for name in tensors)
    assert list(HEADER["__metadata__"]) == ["masterkey"]
    assert canonical_json(json.loads(HEADER["__metadata__"]["masterkey"])) == HEADER["__metadata__"]["masterkey"]


def test_the_reader_in_the_specification_reads_it(tmp_path):
    BANK.save_pretrained(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "format.md").read_text(), re.DOTALL)
    space: Json = {}
    exec(code[1], space)
    layers, about = space["read_bank"](tmp_path / "model.safetensors")
    assert about["name"] == BANK.name
    assert list(layers) == list(BANK.layers)
    assert all(np.array_equal(layers[name], BANK.layers[name].numpy()) for name in layers)


def test_the_examples_of_the_specification_are_of_a_real_bank(data_dir, monkeypatch):
    text = (ROOT / "docs" / "format.md").read_text()
    monkeypatch.chdir(data_dir / "checkpoints")
    bank = eval(re.search(r"```python\n(Bank.*?)```", text, re.DOTALL)[1])
    about = bank.metadata.to_dict(bank.sha256)
    examples = dict(re.findall(r"^\| `(\w+)` \|.*\| `(.*)` \|$", text, re.MULTILINE))
    values = {**about["layers"][1], **about["source"], **about}
    for field in values.keys() - {"source", "layers", "name", "kind"}:  # objects, and names of two fields
        value = values[field]
        shortened = f"{value[:8]}…" if isinstance(value, str) and len(value) == 64 else value
        assert json.loads(examples[field]) == shortened, field


def test_the_specification_names_every_field():
    text = (ROOT / "docs" / "format.md").read_text()
    about = json.loads(HEADER["__metadata__"]["masterkey"])
    for field in [*about, *about["source"], *about["layers"][0]]:
        assert f"| `{field}` |" in text, field


def test_unknown_fields_and_other_metadata_keys_are_ignored(file):
    file.write_bytes(with_metadata(lambda about: about.update(later={"a": 1})))
    assert Bank.from_pretrained(file).metadata == BANK.metadata
    file.write_bytes(with_header(lambda header: header["__metadata__"].update(format="pt")))
    assert Bank.from_pretrained(file).metadata == BANK.metadata


def test_weights_are_a_copy_and_not_a_view_of_the_file(file):
    file.write_bytes(GOOD)
    bank = Bank.from_pretrained(file)
    os.truncate(file, 0)  # in a memory-mapped file the next line would end the process
    assert bank.sha256 == BANK.sha256


@pytest.mark.parametrize("form", ["parameter", "channels_last", "expanded", "slice", "shared"])
def test_any_memory_layout_gives_the_same_bytes(form):
    weight = torch.randn(6, 1, 3, 3)
    plain = from_state_dict({"a.weight": weight}, name="x")
    layers = {
        "parameter": torch.nn.Parameter(weight.clone()),
        "channels_last": weight.clone().contiguous(memory_format=torch.channels_last),
        "expanded": weight.expand(2, 6, 1, 3, 3)[1],
        "slice": torch.cat([weight, weight], dim=1)[:, :1],
        "shared": weight,
    }
    bank = Bank({"a.weight": layers[form]}, plain.metadata)
    assert bank_format.encode(bank.layers, bank.metadata) == bank_format.encode(plain.layers, plain.metadata)


def test_fresh_processes_write_the_same_bytes(tmp_path):
    state = {f"stages.{i}.{c}.dw.weight": torch.randn(5, 1, 3, 3) for i in range(4) for c in "zaq"}
    torch.save({"model": state}, tmp_path / "net.pth")
    save_file(state, tmp_path / "net.safetensors")
    script = (
        "import sys; from masterkey.bank import Bank, join\n"
        "a, b = (Bank.from_checkpoint(f'{sys.argv[1]}/net.{s}', licence='MIT') for s in ('pth', 'safetensors'))\n"
        "join([a.shuffled(1), b.select(stages={2, 0, 1})]).save_pretrained(sys.argv[2])\n"
    )
    names = ["seed 1", "seed 2", "here"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path, tmp_path / name],
            env={**os.environ, "PYTHONHASHSEED": name[-1]},
        )
        for name in names[:2]
    ]
    a, b = (Bank.from_checkpoint(tmp_path / f"net.{suffix}", licence="MIT") for suffix in ("pth", "safetensors"))
    join([a.shuffled(1), b.select(stages={2, 0, 1})]).save_pretrained(tmp_path / "here")
    assert [process.wait() for process in processes] == [0, 0]
    for part in ("model.safetensors", "config.json", "README.md"):
        assert len({(tmp_path / name / part).read_bytes() for name in names}) == 1, part


# -- no bank at all -----------------------------------------------------------------------------------------


def test_missing(tmp_path):
    assert "does not exist" in refused(tmp_path / "nothing", kind=UnknownNameError)
    assert "holds no model.safetensors" in refused(tmp_path, kind=UnknownNameError)
    with pytest.raises(UnreadableError, match="cannot read"):
        bank_format.read(tmp_path / "nothing")
    with pytest.raises(UnreadableError, match="cannot read"):
        bank_format.read(Path("a\0b"))


def test_folders_where_files_should_be(tmp_path, file):
    file.mkdir()
    refused(tmp_path, kind=UnknownNameError)
    refused(file, kind=UnknownNameError)
    with pytest.raises(BankFormatError, match="Is a directory"):
        bank_format.read(file)


def test_no_plain_file(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")  # opening it would wait for ever
    refused(tmp_path, kind=UnknownNameError)
    refused(tmp_path / "model.safetensors", kind=UnknownNameError)


def test_unreadable():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "model.safetensors")
        file.write_bytes(GOOD)
        file.chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            assert "Permission denied" in refused(file)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\x08", "ends after 1 bytes"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
        (b"\n\n  <html lang=en>Not found</html>", "is a web page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(200), "torch checkpoint"),
        (b"\x80\x02}q\x00.", "torch checkpoint"),
        (b'{"error": "Repository not found"}', "not a whole safetensors file"),
        (bytes(8), "does not begin with '{'"),
        (bytes(100), "does not begin with '{'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_something_else_under_that_name(file, header_only, data, words):
    assert words in refused(file, data)


def test_a_checkpoint_is_refused_with_the_command_that_reads_it(file, header_only):
    save_file(dict(BANK.layers), file)
    assert f"masterkey extract {file} -o DIR" in refused(file)
    save_file(dict(BANK.layers), file, metadata={"format": "pt"})
    assert "masterkey extract" in refused(file)
    with pytest.raises(CheckpointError, match="is a bank already"):
        file.write_bytes(GOOD)
        Bank.from_checkpoint(file)


# -- damaged ------------------------------------------------------------------------------------------------


def test_truncated_anywhere(file, header_only):
    interesting = {0, 1, 7, 8, 9, START // 2, START - 1, START, START + 1, START + 4, len(GOOD) - 4, len(GOOD) - 1}
    for length in sorted(interesting | set(range(0, len(GOOD), 37))):
        refused(file, GOOD[:length])


def test_something_appended(file, header_only):
    assert "promises" in refused(file, GOOD + b"\0")
    assert "promises" in refused(file, GOOD + GOOD)


def test_every_single_bit_counts(file):
    survivors = []
    with file.open("wb") as out:
        for position in range(len(GOOD) * 8):
            data = bytearray(GOOD)
            data[position // 8] ^= 1 << position % 8
            out.seek(0)
            out.write(data)
            out.flush()
            try:
                bank_format.read(file)
            except BankFormatError as error:
                assert str(file) in str(error)
            else:
                survivors.append(position)
    assert survivors == []


def test_filters_that_do_not_match_their_hash(file):
    swapped = WEIGHTS[4:8] + WEIGHTS[:4] + WEIGHTS[8:]
    assert "is damaged" in refused(file, assemble(HEADER, swapped))


def test_edited_metadata(file, header_only):
    text = HEADER["__metadata__"]["masterkey"].replace('"licence":"MIT"', '"licence":"CC0"')
    assert "was edited" in refused(file, with_header(lambda header: header["__metadata__"].update(masterkey=text)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_with_the_right_hash(file, value):
    weights = np.frombuffer(WEIGHTS, "<f4").copy()
    weights[3] = value
    # as the specification says: in the metadata's order, which is not always the file's
    digest = hashlib.sha256()
    for layer in BANK.metadata.layers:
        begin, end = HEADER[layer.name]["data_offsets"]
        digest.update(f"{layer.name}\0{','.join(map(str, HEADER[layer.name]['shape']))}\0".encode())
        digest.update(weights.tobytes()[begin:end])
    data = with_metadata(lambda about: about.update(sha256=digest.hexdigest()), weights.tobytes())
    assert "holds 1 weights that are NaN or infinite" in refused(file, data)


# -- a header that lies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [START - 7, 10**8, 10**8 + 1, 2**40, 2**63, 2**64 - 1])
def test_header_length_that_lies(file, header_only, length):
    refused(file, length.to_bytes(8, "little") + GOOD[8:])


def test_header_beyond_the_limit(file, header_only):
    with file.open("wb") as out:
        out.write((100_000_001).to_bytes(8, "little"))
        out.truncate(200_000_000)
    refused(file)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"\xff\xfe":1}',
        b"\xef\xbb\xbf" + json.dumps(HEADER).encode(),
        json.dumps(HEADER).encode("utf-16"),
        json.dumps(HEADER).encode("utf-32"),
        b'{"\xed\xa0\x80":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
        b'{"__metadata__":{"masterkey":"{}"},' + json.dumps(HEADER).encode()[1:],
        b" " + json.dumps(HEADER).encode(),
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_header_that_is_not_such_json(file, raw):
    refused(file, assemble(raw))


def test_duplicate_keys(file, header_only):
    tensor = json.dumps(HEADER["s.0.weight"])
    twice = json.dumps(HEADER)[:-1] + f', "s.0.weight": {tensor}}}'
    assert "a key stands twice" in refused(file, assemble(twice.encode()))
    text = HEADER["__metadata__"]["masterkey"][:-1] + ',"name":"other"}'
    assert "a key stands twice" in refused(file, with_header(lambda h: h["__metadata__"].update(masterkey=text)))


@pytest.mark.parametrize("metadata", [None, [], "text", {"masterkey": 7}, {"masterkey": {}}, {"masterkey": None}])
def test_metadata_that_is_no_map_of_text(file, header_only, metadata):
    refused(file, with_header(lambda header: header.update(__metadata__=metadata)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("dtype", value) for value in (32, None, {"a": []})),
        *(("shape", value) for value in (None, 108, "3133", {"3": 1}, [3, "1", 3, 3], [3, None, 3, 3], [[3], 1, 3, 3])),
        *(("shape", value) for value in ([-3, -1, 3, 3], [3.0, 1, 3, 3], [3, True, 3, 3], [0, 2**62, 3, 3])),
        *(("shape", value) for value in ([10**12, 1, 1, 1], [3, 1, 3, 2**64], [2**32] * 4, [10**4000] * 4)),
        *(("data_offsets", value) for value in (None, 108, "01", [], [0], [0, 108, 108], {"0": 108}, [[], []])),
        *(("data_offsets", value) for value in ([0.0, 108.0], [False, 108], ["0", "108"], [None, 108])),
        *(("data_offsets", value) for value in ([-108, 0], [108, 0], [0, 10**4000], [0, 4 * 10**12])),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_tensor_entry_that_lies(file, header_only, field, value):
    refused(file, with_header(lambda header: header["s.0.weight"].update({field: value})))


@pytest.mark.parametrize("entry", [None, [], "F32", {}, {"shape": [27], "data_offsets": [0, 108]}, {"dtype": "F32"}])
def test_tensor_entry_that_is_none(file, header_only, entry):
    refused(file, with_header(lambda header: header.update({"s.0.weight": entry})))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0, 108], [100, 132]),
        ([0, 108], [0, 32]),
        ([0, 108], [112, 144]),
        ([4, 112], [112, 144]),
        ([0, 108], [140, 172]),
        ([32, 140], [0, 28]),
    ],
)
def test_tensors_that_overlap_or_leave_gaps(file, header_only, first, second):
    def edit(header: Json) -> None:
        header["s.0.weight"]["data_offsets"], header["s.10.weight"]["data_offsets"] = first, second

    refused(file, with_header(edit))


def test_a_shape_of_terabytes_fails_before_memory_is_taken(tmp_path):
    """Sizes that lie fail from the header; a sparse file that is honest about a terabyte fails as too large."""
    shape = [2**36, 1, 2, 2]
    end = 2**36 * 16
    header = {"s.0.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}
    about = json.loads(HEADER["__metadata__"]["masterkey"])
    about["layers"] = [{**about["layers"][0], "name": "s.0.weight", "kernel": [2, 2], "filters": 2**36}]
    data = assemble({"__metadata__": {"masterkey": signed(about)}, **header}, b"")
    (tmp_path / "lying").write_bytes(data + bytes(64))
    (tmp_path / "honest").write_bytes(data)
    try:
        os.truncate(tmp_path / "honest", len(data) + end)
    except OSError as error:
        pytest.skip(f"no sparse file of a terabyte here: {error}")
    script = (
        "import resource, sys; from masterkey.bank import Bank; from masterkey.errors import BankFormatError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in sys.argv[1:]:\n"
        "    try: Bank.from_pretrained(name)\n"
        "    except BankFormatError as error: print(error)\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, 'kilobytes'\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "lying", tmp_path / "honest"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lying, honest = done.stdout.splitlines()
    assert "bytes of weights, the file has 64" in lying
    assert "does not fit into memory" in honest


# -- fuzzing ------------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([0, 1, -1, 3, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf")])
TEXTS = st.one_of(
    st.text(max_size=6), st.sampled_from(["", "..", "F32", "F16", "s.0.weight", "\ud800", "__metadata__"])
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value that something can be put into: container and key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in [(value, key), *places(inner)]]


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    header = copy.deepcopy(HEADER)
    about = json.loads(header["__metadata__"]["masterkey"])
    for target in (about, header):
        for _ in range(draw(st.integers(0, 2))):
            container, key = draw(st.sampled_from(places(target)))
            if isinstance(container, dict) and draw(st.booleans()):
                del container[key]
            else:
                container[key] = draw(VALUES)
    if isinstance(header.get("__metadata__"), dict):
        header["__metadata__"].setdefault("masterkey", signed(about) if draw(st.booleans()) else json.dumps(about))
    return assemble(header)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    data = GOOD
    for _ in range(draw(st.integers(1, 4))):
        at, drop = draw(st.integers(0, len(data))), draw(st.integers(0, 9))
        data = data[:at] + draw(st.binary(max_size=9)) + data[at + drop :]
    return data


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "model.safetensors"


@settings(max_examples=400, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), mutated_files(), damaged_files()))
def test_only_our_errors_come_out(fuzzed, data):
    fuzzed.write_bytes(data)
    for load in (Bank.from_pretrained, Bank.from_checkpoint):
        try:
            load(fuzzed)
        except MasterkeyError as error:
            assert "model" in str(error)
            assert str(error).isprintable()
