"""One line from a name to a network with a bank inside."""

import argparse
import json

import pytest
import timm
import torch
from networks import CONVNEXT, build
from safetensors.torch import save_file

import masterkey
from masterkey import create_model, eject, verify
from masterkey.create import build_timm
from masterkey.errors import CheckpointError, PlanError, UnknownNameError
from masterkey.frozen import is_frozen


class TestCreateModel:
    def test_a_checkpoint_path_is_loaded_first(self, tmp_path):
        trained = build(seed=3)
        save_file(trained.state_dict(), tmp_path / "trained.safetensors")
        model = create_model(CONVNEXT, "scale-space-8", checkpoint_path=str(tmp_path / "trained.safetensors"))
        self.assert_only_depthwise_differs(model, trained)

    def test_pretrained_weights_are_loaded_first(self, tmp_path):
        trained = build(seed=3)
        torch.save(trained.state_dict(), tmp_path / "trained.pth")
        overlay = {"file": str(tmp_path / "trained.pth")}
        model = create_model(CONVNEXT, "scale-space-8", pretrained=True, pretrained_cfg_overlay=overlay)
        self.assert_only_depthwise_differs(model, trained)
        smaller = create_model(
            CONVNEXT, "scale-space-8", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, in_chans=1
        )
        assert torch.equal(smaller.stages[2].blocks[0].mlp.fc1.weight, trained.stages[2].blocks[0].mlp.fc1.weight)
        assert verify(smaller) == []

    def test_a_checkpoint_as_timms_training_writes_it(self, tmp_path):
        trained = build(seed=3)
        options = argparse.Namespace(lr=0.1)
        torch.save({"args": options, "state_dict": trained.state_dict()}, tmp_path / "last.pth.tar")
        model = create_model(CONVNEXT, "scale-space-8", checkpoint_path=str(tmp_path / "last.pth.tar"))
        self.assert_only_depthwise_differs(model, trained)

    def test_a_checkpoint_runs_nothing(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return exec, (f"open({str(tmp_path / 'it-ran')!r}, 'w')",)

        torch.save({"state_dict": build().state_dict(), "args": Evil()}, tmp_path / "evil.pth")
        with pytest.raises(CheckpointError, match=r"evil\.pth could not be loaded"):
            create_model(CONVNEXT, "scale-space-8", checkpoint_path=str(tmp_path / "evil.pth"))
        assert not (tmp_path / "it-ran").exists()

    def test_timm_is_told_to_read_weights_alone(self, tmp_path, monkeypatch):
        seen = {}
        monkeypatch.setattr(timm.models, "load_checkpoint", lambda *args, **options: seen.update(options))
        (tmp_path / "any.pth").touch()
        create_model(CONVNEXT, "scale-space-8", checkpoint_path=str(tmp_path / "any.pth"))
        assert seen == {"weights_only": True}

    @staticmethod
    def assert_only_depthwise_differs(model, trained):
        inside = {f"{name}.weight" for name in masterkey.depthwise_layers(model)}
        state = trained.state_dict()
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[key]) == (key not in inside), key
        assert verify(model) == []
        eject(model)
        assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())

    def test_arguments_go_where_they_belong(self):
        arguments = {"layers": 2, "freeze": False, "scale": "unit"}
        model = create_model(CONVNEXT, "scale-space-8", inject_kwargs=arguments, num_classes=3, drop_path_rate=0.2)
        layers = list(masterkey.depthwise_layers(model).values())
        assert not any(is_frozen(layer) for layer in layers)
        assert torch.allclose(layers[0].weight.flatten(1).norm(dim=1), torch.ones(24))
        assert model.head.fc.out_features == 3

    @pytest.mark.parametrize(
        ("name", "near"), [("convnext_femta", "convnext_femto"), ("mobilenetv3_smal_050", "mobilenetv3_small_050")]
    )
    def test_an_unknown_model_is_answered_with_near_names(self, name, near):
        with pytest.raises(UnknownNameError, match=f"no model named '{name}'; near names: .*{near}"):
            create_model(name, "scale-space-8")

    @pytest.mark.parametrize("name", ["../convnext_femto", "", "a\0b", "x" * 10_000, "convnext_femto; rm"])
    def test_what_is_no_name_is_refused_shortly(self, name):
        with pytest.raises(UnknownNameError) as refusal:
            create_model(name, "scale-space-8")
        assert len(str(refusal.value)) < 300

    def test_an_unknown_tag_is_refused(self):
        with pytest.raises(UnknownNameError, match="no_such_tag"):
            create_model(f"{CONVNEXT}.no_such_tag", "scale-space-8", pretrained=True)

    def test_an_unknown_bank_is_refused_before_anything_is_built(self, monkeypatch):
        monkeypatch.setattr(timm, "create_model", None)
        with pytest.raises(UnknownNameError, match="scale-space-8"):
            create_model(CONVNEXT, "scale-space-9")

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"freeze": False}, "freeze is an option of the injection: inject_kwargs={'freeze': False}"),
            (
                {"policy": "sample", "num_classes": 3, "seed": 1},
                "policy, seed are options of the injection: inject_kwargs={'policy': 'sample', 'seed': 1}",
            ),
            ({"scale": "unit"}, "scale is an option of the injection: inject_kwargs={'scale': 'unit'}"),
            ({"layers": ["stage:1"]}, "layers is an option of the injection: inject_kwargs={'layers': ['stage:1']}"),
        ],
    )
    def test_options_of_the_injection_are_told_where_they_belong(self, given, says):
        with pytest.raises(PlanError) as refusal:
            create_model(CONVNEXT, "scale-space-8", **given)
        assert str(refusal.value) == says

    def test_a_networks_own_arguments_stay_its_own(self):
        model = create_model("swiftformer_xs", "scale-space-8", layers=[1, 1, 1, 1])
        assert len(model.stages[0].blocks) == 1
        for given in ({"layers": [1, 1]}, {"scale": 2}, {"no_such": 1}):
            with pytest.raises(TypeError, match=next(iter(given))):
                create_model(CONVNEXT, "scale-space-8", **given)

    def test_a_checkpoint_that_is_not_there_is_one_sentence(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(timm, "create_model", None)  # and nothing is built for it
        for path in (tmp_path / "nothere.pth", tmp_path):
            with pytest.raises(CheckpointError, match=f"{path.name} could not be loaded into {CONVNEXT}: no such file"):
                create_model(CONVNEXT, "scale-space-8", checkpoint_path=str(path))
        assert caplog.text == ""

    def test_a_checkpoint_that_does_not_fit_is_refused(self, tmp_path):
        save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
        for path in (tmp_path / "other.safetensors", tmp_path / "none.pth"):
            with pytest.raises(CheckpointError, match=path.name):
                create_model(CONVNEXT, "scale-space-8", checkpoint_path=str(path))


def test_names_of_folders_that_timm_cannot_make_out(tmp_path):
    config = {"architecture": "no_such_network", "num_classes": 3, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownNameError, match="no_such_network"):
        create_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": CONVNEXT}))
    assert verify(create_model(f"local-dir:{tmp_path}")) == []
    with pytest.raises(IndexError):  # an argument that the network does not take is the caller's, under any name
        create_model(f"local-dir:{tmp_path}", features_only=True, out_indices=(9,))


@pytest.mark.parametrize(
    "config", ["{", "[]", '{"architecture": "test_convnext", "num_classes": "x", "pretrained_cfg": {}}', None]
)
def test_a_description_that_is_none_is_one_sentence(tmp_path, config):
    (tmp_path / "config.json").write_text(config or '{"architecture": "test_convnext", "pretrained_cfg": {}}')
    with pytest.raises(CheckpointError, match=r"^local-dir:.* could not be built: .+") as caught:
        build_timm(f"local-dir:{tmp_path}", pretrained=config is None, num_classes=None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [{"foo": 1}, {"bank": "random"}, "stack", ["stack"], {"model": None}])
def test_options_that_inject_does_not_have_are_refused_before_a_network_is_built(given, monkeypatch):
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(
        PlanError, match="inject_kwargs are a mapping with some of policy, layers, kernel, scale, freeze"
    ):
        create_model(CONVNEXT, inject_kwargs=given)


@pytest.mark.parametrize("name", [None, 5, torch.nn.Identity()])
def test_a_network_that_is_no_name_is_refused(name):
    with pytest.raises(UnknownNameError, match="a network is named by a text"):
        create_model(name)
