"""Banks out of ONNX files: which convolutions are taken, in which order, and what is refused."""

import json
import sys

import numpy as np
import pytest
import torch

from masterkey.analysis.collection import open_collection
from masterkey.analysis.structure import measure, survey_all
from masterkey.bank import Bank
from masterkey.cli.main import run
from masterkey.errors import BankFormatError, CheckpointError

onnx = pytest.importorskip("onnx", reason="needs masterkey[onnx]")


def weight(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


WEIGHTS = {
    "stem.weight": weight(8, 3, 3, 3),
    "stages.0.dw.weight": weight(8, 1, 5, 5),
    "stages.0.pw.weight": weight(16, 8, 1, 1),
    "up.weight": weight(16, 4, 3, 3),
    "line.weight": weight(4, 4, 3),
}


@pytest.fixture
def file(tmp_path):
    """A stem, a depthwise convolution used twice, a pointwise one, a transposed one, one of a single dimension."""

    def conv(name, source, target, op="Conv", **attributes):
        return onnx.helper.make_node(op, [source, name], [target], **attributes)

    nodes = [
        onnx.helper.make_node("Constant", [], ["late"], value=onnx.numpy_helper.from_array(weight(8, 1, 3, 3))),
        conv("stem.weight", "x", "a", strides=[2, 2]),
        conv("stages.0.dw.weight", "a", "b", group=8),
        conv("stages.0.dw.weight", "b", "c", group=8),
        conv("late", "c", "d", group=8),
        conv("stages.0.pw.weight", "d", "e"),
        conv("up.weight", "e", "f", op="ConvTranspose"),
        conv("line.weight", "g", "h"),
        conv("not stored here", "f", "i"),
    ]
    stored = [onnx.numpy_helper.from_array(array, name) for name, array in reversed(WEIGHTS.items())]
    graph = onnx.helper.make_graph(nodes, "net", [], [], stored)
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    return path


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("depthwise", ["stages.0.dw.weight", "late"]),
        ("dense", ["stem.weight"]),
        ("pointwise", ["stages.0.pw.weight"]),
        ("all", ["stem.weight", "stages.0.dw.weight", "late", "stages.0.pw.weight"]),
    ],
)
def test_which_convolutions_are_taken(file, kind, names):
    bank = Bank.from_checkpoint(file, kind, licence="MIT")
    assert list(bank.layers) == names
    assert bank.metadata.order == "forward" and bank.metadata.licence == "MIT" and bank.name == "net"
    for name in set(names) & set(WEIGHTS):
        np.testing.assert_array_equal(bank.layers[name].numpy(), WEIGHTS[name])


def test_kinds_go_by_groups_as_in_a_live_network(tmp_path):
    """A grouped convolution is neither depthwise, nor pointwise, nor dense."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=2), torch.nn.Conv2d(8, 8, 1, groups=4)
    ).append(torch.nn.Conv2d(8, 8, 3, groups=8))
    nodes = [
        onnx.helper.make_node("Conv", [f"a{i}", f"{i}.weight"], [f"a{i + 1}"], group=layer.groups)
        for i, layer in enumerate(network)
    ]
    stored = [
        onnx.numpy_helper.from_array(each.weight.detach().numpy(), f"{i}.weight") for i, each in enumerate(network)
    ]
    path = tmp_path / "grouped.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [], [], stored)), path)
    for kind in ("depthwise", "dense", "all"):
        assert list(Bank.from_checkpoint(path, kind).layers) == list(Bank.from_model(network, kind).layers)
    with pytest.raises(CheckpointError, match="no pointwise"):
        Bank.from_checkpoint(path, "pointwise")
    (spatial,) = open_collection([path]).banks
    assert [layer.name for layer in spatial.metadata.layers] == ["0.weight", "1.weight", "3.weight"]


def test_what_is_known_of_a_layer(file):
    stem, depthwise = Bank.from_checkpoint(file, "all").metadata.layers[:2]
    assert (stem.stride, stem.groups, stem.stage) == ((2, 2), 1, None)
    assert (depthwise.stride, depthwise.groups, depthwise.stage, depthwise.kernel) == ((1, 1), 8, 0, (5, 5))


def test_the_command(file, tmp_path, capsys):
    assert run(["extract", str(file), "-o", str(tmp_path / "bank")]) == 0
    assert "8 of 3x3, 8 of 5x5" in capsys.readouterr().out
    assert Bank.from_pretrained(tmp_path / "bank").metadata.source.kind == "onnx"


def test_half_precision_becomes_single(tmp_path):
    half = weight(4, 1, 3, 3).astype(np.float16)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    graph = onnx.helper.make_graph([node], "net", [], [], [onnx.numpy_helper.from_array(half, "w")])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "half.onnx")
    layer = Bank.from_checkpoint(tmp_path / "half.onnx").layers["w"]
    assert layer.dtype == torch.float32
    np.testing.assert_array_equal(layer.numpy(), half.astype(np.float32))


def test_broken_files_and_missing_kinds_are_refused(file, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match=r"broken\.onnx"):
        Bank.from_checkpoint(tmp_path / "broken.onnx")
    with pytest.raises(CheckpointError, match=r"away\.onnx"):
        Bank.from_checkpoint(tmp_path / "away.onnx")
    with pytest.raises(CheckpointError, match="unknown kind"):
        Bank.from_checkpoint(file, "round")
    for number, (inputs, values, strides) in enumerate(
        [(["x", "w"], weight(4, 1, 3, 3), [2]), (["x", "w"], weight(4, 1, 3, 3).astype("complex64"), [1, 1])]
    ):
        node = onnx.helper.make_node("Conv", inputs, ["y"], group=4, strides=strides)
        graph = onnx.helper.make_graph([node], "net", [], [], [onnx.numpy_helper.from_array(values, "w")])
        onnx.save(onnx.helper.make_model(graph), tmp_path / f"{number}.onnx")
        with pytest.raises(CheckpointError, match="no 2-d convolution of real weights"):
            Bank.from_checkpoint(tmp_path / f"{number}.onnx")
    bare = onnx.helper.make_graph([onnx.helper.make_node("Conv", ["x"], ["y"])], "net", [], [])
    onnx.save(onnx.helper.make_model(bare), tmp_path / "bare.onnx")
    with pytest.raises(CheckpointError, match="holds no depthwise"):
        Bank.from_checkpoint(tmp_path / "bare.onnx")
    empty = onnx.helper.make_model(onnx.helper.make_graph([], "net", [], []))
    onnx.save(empty, tmp_path / "empty.onnx")
    with pytest.raises(CheckpointError, match="holds no depthwise"):
        Bank.from_checkpoint(tmp_path / "empty.onnx")


def test_nan_is_refused(tmp_path):
    bad = np.full((4, 1, 3, 3), np.nan, np.float32)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    graph = onnx.helper.make_graph([node], "net", [], [], [onnx.numpy_helper.from_array(bad, "w")])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "nan.onnx")
    with pytest.raises(BankFormatError, match="NaN"):
        Bank.from_checkpoint(tmp_path / "nan.onnx")


def computed(path, *nodes, **stored):
    """Write a file with one 4-channel depthwise convolution, whose weight ``w`` nodes compute out of what is stored."""
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "r")]
    conv = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    graph = onnx.helper.make_graph([*nodes, conv], "net", inputs, [], tensors)
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def test_weights_that_the_file_computes_are_as_its_convolutions_see_them(tmp_path):
    whole = np.random.default_rng(0).integers(-128, 128, (4, 1, 3, 3)).astype(np.int8)
    scale, zero = np.float32([0.5, 0.25, 2, 1]), np.int8([0, 1, -2, 3])
    node = onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0)
    bank = Bank.from_checkpoint(computed(tmp_path / "quantised.onnx", node, q=whole, scale=scale, zero=zero))
    expected = (whole.astype(np.float32) - zero.reshape(4, 1, 1, 1)) * scale.reshape(4, 1, 1, 1)
    np.testing.assert_array_equal(bank.layers["w"].numpy(), expected)

    stored = weight(3, 3, 4, 1)
    nodes = [
        onnx.helper.make_node("Identity", ["stored"], ["same"]),
        onnx.helper.make_node("Transpose", ["same"], ["w"], perm=[2, 3, 0, 1]),
    ]
    bank = Bank.from_checkpoint(computed(tmp_path / "turned.onnx", *nodes, stored=stored))
    np.testing.assert_array_equal(bank.layers["w"].numpy(), stored.transpose(2, 3, 0, 1))


def test_weights_that_depend_on_the_input_are_no_filters(tmp_path):
    node = onnx.helper.make_node("Mul", ["stored", "r"], ["w"])
    with pytest.raises(CheckpointError, match="holds no depthwise"):
        Bank.from_checkpoint(computed(tmp_path / "dynamic.onnx", node, stored=weight(4, 1, 3, 3)))


def test_weights_made_by_an_unknown_operator_are_refused(tmp_path):
    node = onnx.helper.make_node("Unpack", ["stored"], ["w"], domain="org.example")
    path = computed(tmp_path / "own.onnx", node, stored=weight(4, 1, 3, 3))
    with pytest.raises(CheckpointError, match=r"own\.onnx: weight 'w': it cannot be computed by the onnx package"):
        Bank.from_checkpoint(path)


# -- in a collection ----------------------------------------------------------------------------------------


def test_a_collection_takes_all_spatial_filters_and_streams_them(file, tmp_path):
    folder = tmp_path / "nets"
    folder.mkdir()
    file.rename(folder / "net.onnx")
    Bank.from_checkpoint(folder / "net.onnx").save_pretrained(folder / "bank")
    (folder / "collection.csv").write_text("bank,family\nnet,small\n")
    collection = open_collection([folder])
    assert [filters.label for filters in collection.banks] == ["bank", "net"]
    assert (collection.tags["net"].family, collection.tags["net"].model) == ("small", "net")
    (_, read) = collection.survey()
    assert [(layer.info.name, layer.info.kernel, layer.info.filters) for layer in read.sums] == [
        ("stem.weight", (3, 3), 24),
        ("stages.0.dw.weight", (5, 5), 8),
        ("late", (3, 3), 8),
    ]
    in_memory = Bank.from_checkpoint(folder / "net.onnx", "all")
    in_memory = in_memory.select(layers=["stem.weight", "stages.0.dw.weight", "late"]).renamed("net")
    for kernel in ((3, 3), (5, 5)):
        one, other = measure([read], kernel), measure(survey_all([in_memory]), kernel)
        np.testing.assert_array_equal(one.counts, other.counts)
        np.testing.assert_array_equal(one.components, other.components)


def test_the_command_analyses_an_onnx_file_and_names_a_broken_one(file, tmp_path, capsys):
    assert run(["analyze", str(file), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["banks"]) == ["net"]
    (tmp_path / "broken.onnx").write_bytes(file.read_bytes()[:-30])
    assert run(["analyze", str(tmp_path), "--json"]) == 1
    said = capsys.readouterr()
    assert list(json.loads(said.out)["banks"]) == ["net"]
    assert "broken.onnx cannot be read as ONNX" in said.err


def test_pointwise_filters_alone_and_a_missing_extra_are_refused(tmp_path, monkeypatch, capsys):
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "net", [], [], [onnx.numpy_helper.from_array(weight(4, 4, 1, 1), "w")])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "flat.onnx")
    assert "no convolution larger than 1x1" in open_collection([tmp_path / "flat.onnx"]).broken["flat"]
    monkeypatch.setitem(sys.modules, "onnx", None)  # as where the extra is not installed
    (tmp_path / "other.onnx").write_bytes((tmp_path / "flat.onnx").read_bytes())
    assert run(["analyze", str(tmp_path / "other.onnx")]) == 1
    assert "ONNX files need the extra onnx: pip install 'masterkey[onnx]'" in capsys.readouterr().err


def test_a_file_that_changes_while_it_is_read_is_broken(file):
    collection = open_collection([file])
    content = onnx.load(str(file))
    content.graph.initializer.append(onnx.numpy_helper.from_array(weight(4, 4, 3), "one more"))
    onnx.save(content, file)
    assert collection.survey() == []
    assert "was changed while it was read" in collection.broken["net"]
