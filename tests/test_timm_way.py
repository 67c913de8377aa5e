"""timm's own way in: a file that its train.py begins with, and a network with a bank inside on the Hub and back."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from hub_server import HubServer
from networks import depthwise_weights, equal, train
from safetensors.torch import load_file

import masterkey
from masterkey.cli.main import run
from masterkey.frozen import is_frozen

MODELS = ["test_convnext", "mobilenetv3_small_050"]


@pytest.fixture(scope="module", params=MODELS)
def written(request, tmp_path_factory) -> tuple[str, Path]:
    """A network's name, and what ``masterkey init`` writes for it."""
    file = tmp_path_factory.mktemp("init") / "model.safetensors"
    assert run(["init", request.param, "--bank", "scale-space-8", "--num-classes", "5", "-o", str(file)]) == 0
    return request.param, file


def with_bank(name: str, **kwargs) -> dict[str, torch.Tensor]:
    """The depthwise weights as ``create_model`` puts them in."""
    return depthwise_weights(masterkey.create_model(name, "scale-space-8", num_classes=5, **kwargs))


def test_create_model_as_train_py_calls_it(written):
    name, file = written
    # train.py --model NAME --num-classes 5 --initial-checkpoint FILE (timm 1.0.28), all else left at its default
    model = timm.create_model(
        name,
        pretrained=False,
        in_chans=3,
        num_classes=5,
        drop_rate=0.0,
        drop_path_rate=None,
        drop_block_rate=None,
        global_pool=None,
        bn_momentum=None,
        bn_eps=None,
        scriptable=False,
        checkpoint_path=str(file),
    )
    state = load_file(file)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert equal(depthwise_weights(model), with_bank(name))


def test_load_checkpoint_takes_every_key(written):
    name, file = written
    model = timm.create_model(name, num_classes=5)
    loaded = timm.models.load_checkpoint(model, str(file), strict=True)
    assert not loaded.missing_keys and not loaded.unexpected_keys
    assert equal(depthwise_weights(model), with_bank(name))
    as_dict = timm.models.load_state_dict(str(file))
    assert as_dict.keys() == model.state_dict().keys()


def test_as_pretrained_weights_with_another_head(written):
    name, file = written
    overlay = {"file": str(file), "num_classes": -1}  # train.py --pretrained-path FILE
    model = timm.create_model(name, pretrained=True, num_classes=7, pretrained_cfg_overlay=overlay)
    assert equal(depthwise_weights(model), with_bank(name))
    assert model.num_classes == 7


def test_plain_timm_does_not_keep_it_frozen_and_injecting_again_does(written):
    name, file = written
    plain = timm.create_model(name, num_classes=5, checkpoint_path=str(file))
    train(plain)
    assert not equal(depthwise_weights(plain), with_bank(name))
    frozen = masterkey.create_model(name, "scale-space-8", num_classes=5, checkpoint_path=str(file))
    filled = with_bank(name)
    assert equal(depthwise_weights(frozen), filled)
    rest = {key: value for key, value in load_file(file).items() if key.removesuffix(".weight") not in filled}
    assert all(torch.equal(frozen.state_dict()[key], value) for key, value in rest.items())
    train(frozen)
    assert equal(depthwise_weights(frozen), filled)
    assert masterkey.verify(frozen) == []


@pytest.mark.parametrize(
    "options",
    [["--bank", "random"], ["--bank", "random-8", "--scale", "target"], ["--scale", "target"], ["--layers", "3"]],
)
@pytest.mark.parametrize("name", [*MODELS, "hornet_tiny_7x7"])
def test_its_own_filters_freeze_a_file_bit_for_bit(name, options, tmp_path, capsys):
    """As the last line of ``masterkey init`` says."""
    file = tmp_path / "model.safetensors"
    small = ["--model-kwargs", "depths=[1,1,1,1]", "--model-kwargs", "dims=[8,16,32,64]"] if "hornet" in name else []
    assert run(["init", name, *options, *small, "--num-classes", "5", "-o", str(file)]) == 0
    said = capsys.readouterr().err
    kwargs = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64]} if small else {}
    model = timm.create_model(name, num_classes=5, checkpoint_path=str(file), **kwargs)
    report = eval(re.search(r"masterkey\.inject\(.*\)(?= freezes)", said)[0], {"masterkey": masterkey, "model": model})
    assert sum(row.replaced for row in report.rows) == (3 if "--layers" in options else len(report.rows))
    assert equal(model.state_dict(), load_file(file)) and masterkey.verify(model) == []
    assert sum(is_frozen(layer) for layer in masterkey.depthwise_layers(model).values()) == sum(
        row.replaced for row in report.rows
    )


def test_filters_of_another_kind_are_frozen_as_that_kind(tmp_path, capsys):
    masterkey.Bank.from_model(timm.create_model("test_convnext"), "pointwise").save_pretrained(tmp_path / "bank")
    file = tmp_path / "model.safetensors"
    assert (
        run(["init", "test_convnext", "--bank", str(tmp_path / "bank"), "--policy", "layerwise", "-o", str(file)]) == 0
    )
    model = timm.create_model("test_convnext", checkpoint_path=str(file))
    advice = re.search(r"masterkey\.inject\(.*\)(?= freezes)", capsys.readouterr().err)[0]
    assert eval(advice, {"masterkey": masterkey, "model": model}).kind == "pointwise"
    assert equal(model.state_dict(), load_file(file))


PUSH = """
import timm, torch, masterkey
for name in {names}:
    model = masterkey.create_model(name, "scale-space-8", num_classes=5)
    timm.models.push_to_hf_hub(model, "org/" + name, token="hf_reader", model_config={{"label_names": list("abcde")}})
    torch.save(model.state_dict(), {folder!r} + "/" + name + ".pth")
"""
PULL = """
import json, timm, torch, masterkey
found = {{}}
for name in {names}:
    pushed = torch.load({folder!r} + "/" + name + ".pth", weights_only=True)
    model = timm.create_model("hf-hub:org/" + name, pretrained=True)
    again = timm.create_model("hf-hub:org/" + name, pretrained=True)
    masterkey.inject(again, masterkey.Bank.from_model(again), policy="layerwise")
    found[name] = {{
        "keys": list(model.state_dict()) == list(timm.create_model(name, num_classes=5).state_dict()),
        "bits": [
            network.state_dict().keys() == pushed.keys()
            and all(torch.equal(value, pushed[key]) for key, value in network.state_dict().items())
            for network in (model, again)
        ],
        "classes": model.num_classes,
        "verified": masterkey.verify(again),
    }}
print(json.dumps(found))
"""


def test_pushed_by_timm_it_comes_back_through_timm(tmp_path):
    about = {"names": MODELS, "folder": str(tmp_path)}
    with HubServer() as hub:
        done = hub.run("-c", PUSH.format(**about), home=tmp_path / "there")
        assert done.returncode == 0, done.stderr
        done = hub.run("-c", PULL.format(**about), home=tmp_path / "here")
        assert done.returncode == 0, done.stderr
        for name in MODELS:
            assert json.loads(hub.read(f"org/{name}", "config.json"))["architecture"] == name
            served = hub.sent(f"{name}/model.safetensors")
            assert served == len(hub.read(f"org/{name}", "model.safetensors")), "the weights came from the server"
    expected = {"keys": True, "bits": [True, True], "classes": 5, "verified": []}
    assert json.loads(done.stdout) == dict.fromkeys(MODELS, expected)
