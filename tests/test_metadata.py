"""Metadata that lies about itself, or about the tensors beside it, in a file that is otherwise sound."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from samples import (
    BANK,
    HEADER,
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
from masterkey.errors import BankFormatError, NewerFormatError
from masterkey.metadata import CHECKSUM_KEY


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def header_only(monkeypatch):
    """Whatever is refused under this fixture is refused before a single weight is read."""
    monkeypatch.setattr(bank_format, "load", lambda data: pytest.fail("the weights were read"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", "NaN", '"text"', "[" * 5000, '{"format":' * 500, "\ud800"]
)
def test_metadata_that_is_not_a_json_object(file, header_only, text):
    refused(file, with_header(lambda header: header["__metadata__"].update(masterkey=text)))


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, True, "1", None, [1], 10**4000, "9" * 10_000])
def test_unknown_format_version(file, header_only, version):
    is_newer = type(version) is int and version > 1
    data = with_metadata(lambda about: about.update(format=version))
    assert "this masterkey reads format 1" in refused(file, data, NewerFormatError if is_newer else BankFormatError)


@pytest.mark.parametrize("field", [key for key in json.loads(HEADER["__metadata__"]["masterkey"]) if key != "format"])
def test_missing_field(file, header_only, field):
    header = copy.deepcopy(HEADER)
    about = json.loads(header["__metadata__"]["masterkey"])
    del about[field]
    header["__metadata__"]["masterkey"] = json.dumps(about) if field == CHECKSUM_KEY else signed(about)
    assert f"lacks '{field}'" in refused(file, assemble(header))


@pytest.mark.parametrize("field", ["kind", "id", "revision", "file", "entry", "sha256_announced", "sha256_verified"])
def test_missing_field_of_the_source(file, header_only, field):
    assert f"lacks '{field}'" in refused(file, with_metadata(lambda about: about["source"].pop(field)))


@pytest.mark.parametrize("field", ["name", "kernel", "filters", "groups", "stride", "stage", "factor"])
def test_missing_field_of_a_layer(file, header_only, field):
    assert f"lacks '{field}'" in refused(file, with_metadata(lambda about: about["layers"][1].pop(field)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("name", "kind", "order", "sha256") for value in (None, 7, [], "\x1b[2J")),
        *((field, value) for field in ("kind", "order", "sha256") for value in ("", "other")),
        *((field, value) for field in ("base_model", "licence") for value in (7, [], {}, "a\nb", "\ud800", "\x9b31m")),
        *((field, value) for field in ("layers", "datasets", "transformations") for value in (None, {}, "ab", 7)),
        ("layers", []),
        ("layers", [None]),
        ("layers", [["name"]]),
        ("layers", ["s.0.weight", "s.10.weight"]),
        ("datasets", [7]),
        ("datasets", [["pets"]]),
        ("datasets", ["pets\0"]),
        ("source", None),
        ("source", []),
        ("source", "file"),
        ("transformations", [7]),
        ("transformations", [["op"]]),
        ("transformations", [{}]),
        ("transformations", [{"op": 7}]),
        ("transformations", [{"op": ""}]),
        ("transformations", [{"op": "a", "b\x07": 1}]),
        ("transformations", [{"op": "a", "b": ["\udfff"]}]),
        ("transformations", [{"op": "a", "b": 1e999}]),
        ("transformations", [{"op": "a", "b": float("nan")}]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_field_of_a_wrong_type_or_value(file, header_only, field, value):
    refused(file, with_metadata(lambda about: about.update({field: value})))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", value) for value in ("", "a" * 1001, "a\0b", "a\nb", "\x1b]0;x\x07", "\ud800", "__metadata__", 7)),
        *(("kernel", value) for value in (3, [3], [3, 3, 3], [3, 0], [3.0, 3.0], [True, 3], "33", [-3, -3], [3, None])),
        *(("filters", value) for value in (0, -3, 3.0, True, "3", None, 2**63, 10**4000, [])),
        *(("groups", value) for value in (0, -1, 1.5, False, "1", [])),
        *(("stride", value) for value in (1, [1], [0, 1], [1, 1, 1], [True, 1], "11")),
        *(("stage", value) for value in (-1, 0.5, True, "0", [])),
        *(("factor", value) for value in (None, "1", True, [], 10**400, 1e999, -1e999, float("nan"))),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_layer_field_of_a_wrong_type_or_value(file, header_only, field, value):
    refused(file, with_metadata(lambda about: about["layers"][0].update({field: value})))


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "..",
        ".",
        "",
        "..\\..\\secret",
        "\\\\server\\share",
        "C:\\secret",
        "c:secret",
        "https://example.org/x",
        "file:///etc/passwd",
        "a\0b",
        7,
        ["a"],
    ],
)
def test_source_file_outside_its_folder(file, header_only, name):
    refused(file, with_metadata(lambda about: about["source"].update(file=name)))


@pytest.mark.parametrize("name", ["a.pth", "sub/dir/model.safetensors", "epoch:10 (best).pth", "a..b.pth", "é.pth"])
def test_source_file_inside_its_folder(file, name):
    file.write_bytes(with_metadata(lambda about: about["source"].update(file=name)))
    assert Bank.from_pretrained(file).metadata.source.file == name


def test_layers_that_are_not_the_tensors(file, header_only):
    sentence = "the layers named in its metadata are not the tensors it holds"
    assert sentence in refused(file, with_metadata(lambda about: about["layers"].pop()))
    assert sentence in refused(file, with_metadata(lambda about: about["layers"].append(about["layers"][0])))
    assert sentence in refused(file, with_metadata(lambda about: about["layers"][0].update(name="other.weight")))
    more = {"dtype": "F32", "shape": [1], "data_offsets": [len(WEIGHTS), len(WEIGHTS) + 4]}
    assert sentence in refused(file, with_header(lambda header: header.update(extra=more), WEIGHTS + bytes(4)))
    assert "a bank without layers" in refused(file, with_metadata(lambda about: about.update(layers=[])))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"kernel": [5, 5]}, "its metadata says 3 filters of 5x5"),
        ({"filters": 4}, "its metadata says 4 filters of 3x3"),
    ],
)
def test_layers_of_another_size_than_their_tensors(file, header_only, edit, words):
    def update(about: Json) -> None:
        next(layer for layer in about["layers"] if layer["name"] == "s.0.weight").update(edit)

    assert words in refused(file, with_metadata(update))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dtype": "F16", "shape": [6, 1, 3, 3]}, "is 'F16', a bank holds float32"),
        ({"dtype": "BF16", "shape": [6, 1, 3, 3]}, "is 'BF16', a bank holds float32"),
        ({"dtype": "I32"}, "is 'I32', a bank holds float32"),
        ({"dtype": "F" * 10**6}, "a bank holds float32"),
        ({"dtype": "\x1b[2J"}, "a bank holds float32"),
        ({"shape": [27]}, "has 1 dimensions"),
        ({"shape": [3, 3, 3]}, "has 3 dimensions"),
        ({"shape": [3, 1, 1, 3, 3]}, "has 5 dimensions"),
        ({"shape": [1] * 10**5 + [27]}, "has 100001 dimensions"),
        ({"shape": [1, 3, 3, 3]}, "its metadata says 3 filters"),
        ({"shape": [3, 3, 3, 1]}, "its metadata says 3 filters"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_tensors_that_are_no_filters(file, header_only, entry, words):
    assert words in refused(file, with_header(lambda header: header["s.0.weight"].update(entry)))


def test_a_depthwise_filter_has_one_channel(file, header_only):
    header = copy.deepcopy(HEADER)
    about = json.loads(header["__metadata__"]["masterkey"])
    next(layer for layer in about["layers"] if layer["name"] == "s.0.weight").update(kernel=[3, 1])
    header["s.0.weight"]["shape"] = [3, 3, 3, 1]
    header["__metadata__"]["masterkey"] = signed(about)
    assert "a depthwise filter has one input channel" in refused(file, assemble(header))


@pytest.mark.parametrize("shape", [[0, 1, 3, 3], [3, 0, 3, 3], [3, 1, 0, 3]])
def test_layers_without_filters(file, header_only, shape):
    header = copy.deepcopy(HEADER)
    header["s.0.weight"].update(shape=shape, data_offsets=[0, 0])
    header["s.10.weight"]["data_offsets"] = [0, 32]
    assert "holds no filters" in refused(file, assemble(header, bytes(32)))


def test_nesting(file, header_only):
    def nested(depth: int) -> Callable[[Json], None]:
        value: list = []
        for _ in range(depth):
            value = [value]
        return lambda about: about["transformations"].append({"op": "x", "y": value})

    assert "nested deeper than 200 levels" in refused(file, with_metadata(nested(250)))


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**30])
def test_whole_numbers_that_other_readers_cannot_hold(file, header_only, number):
    step = {"op": "x", "y": [number]}
    assert "2**63 - 1" in refused(file, with_metadata(lambda about: about["transformations"].append(step)))
    with pytest.raises(BankFormatError, match=r"2\*\*63 - 1"):
        bank_format.encode(BANK.layers, replace(BANK.metadata, transformations=(step,)))


def test_joining_one_by_one_meets_the_limit_as_one_sentence():
    chain = BANK
    with pytest.raises(BankFormatError, match=r"nested deeper than 200 levels; join many banks in one step"):
        for _ in range(100):
            chain = chain + BANK
    assert len(join([BANK] * 100).layers) == 200
