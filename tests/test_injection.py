"""Banks in networks: apply, report, undo, and what an injection leaves alone."""

import json
from itertools import combinations

import numpy as np
import pytest
import timm
import torch
from networks import CONVNEXT, MOBILENET, Crossed, assert_same, build, depthwise_weights, equal, snapshot, train
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

import masterkey
from masterkey import Bank, create_model, eject, freeze, inject, thaw, verify
from masterkey.errors import NoTargetLayersError, NotInjectedError, PlanError
from masterkey.extract import from_state_dict
from masterkey.frozen import is_frozen
from masterkey.wrapped import unwrapped


class TestReport:
    def test_every_layer_is_there_with_what_happened(self):
        model = build()
        report = inject(model, "scale-space-8", layers=["stage:1", "stages.3.*"])
        names = list(masterkey.depthwise_layers(model))
        assert [row.layer for row in report.rows] == names
        assert [row.layer for row in report.replaced] == [n for n in names if n.startswith(("stages.1", "stages.3"))]
        for row in report.rows:
            assert row.replaced == (row.reason is None)
            assert row.replaced == bool(row.sources)
        assert "layers=['stage:1', 'stages.3.*']" in report.rows[0].reason
        assert str(report).count("left alone") == len(names) - len(report.replaced)
        assert all(name in str(report) for name in names)

    def test_resized_and_wrapped_are_said(self):
        bank = Bank.from_pretrained("scale-space-8").at(7)
        rows = inject(build(MOBILENET), bank).rows
        assert rows[0].fitted == "crop 7x7 to 3x3"
        assert all(row.wrapped for row in rows)
        assert rows[0].sources == ("keys.7x7[0:8] x2",)

    def test_it_is_plain_data(self):
        report = inject(build(), "scale-space-8", layers=3)
        data = json.loads(json.dumps(report.to_dict()))
        assert data["bank"] == "scale-space-8"
        assert data["order"] == "forward"
        assert [row["replaced"] for row in data["rows"]] == [True] * 3 + [False] * 6
        assert data["rows"][0]["kernel"] == [7, 7]

    def test_other_filters_make_another_report(self):
        bank = Bank.from_pretrained("scale-space-8")
        ways = [
            (bank, {}),
            (bank.pixel_shuffled(3), {}),
            (bank, {"scale": "unit"}),
            (bank, {"scale": "target"}),
            ("random", {"seed": 1}),
            ("random", {"seed": 2}),
            (Bank.from_pretrained("random").signed(), {"seed": 2}),
        ]
        reports = [inject(build(), given, **options) for given, options in ways]
        assert not [(a, b) for a, b in combinations(range(len(ways)), 2) if reports[a] == reports[b]]
        assert "scale-space-8, pixel_shuffled: " in reports[1].summary()
        assert ", frozen, scale=unit; " in reports[2].summary()

    def test_it_says_what_it_was_given_and_what_the_filters_were(self):
        report = inject(build(), "random", layers=2, kernel="resample", scale="target", seed=5)
        assert (report.layers, report.kernel, report.scale, report.seed) == (2, "resample", "target", 5)
        again = inject(build(), "random", layers=2, kernel="resample", scale="target", seed=5)
        assert report == again and len(report.sha256) == 64

    @pytest.mark.parametrize("frozen", [True, False])
    def test_trainable_counts(self, frozen):
        model = build()
        before = sum(p.numel() for p in model.parameters())
        report = inject(model, "scale-space-8", layers=2, freeze=frozen)
        inside = (24 + 32) * 49 if frozen else 0
        assert (report.trainable_before, report.trainable_after) == (before, before - inside)
        assert report.trainable_after == sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert f"{before:,} -> {before - inside:,}" in report.summary()

    def test_layers_0_leaves_everything_alone(self):
        model = build()
        before = snapshot(model)
        report = inject(model, "scale-space-8", layers=0)
        assert len(report.rows) == 9
        assert not report.replaced
        assert_same(snapshot(model), before)


class TestNothingChangesUnlessEverythingFits:
    @pytest.mark.parametrize(
        ("kwargs", "sentence"),
        [
            ({"kernel": "exact"}, "exact"),
            ({"policy": "layerwise"}, "layerwise"),
            ({"policy": "nonsense"}, "unknown policy"),
            ({"scale": "nonsense"}, "unknown scale rule"),
            ({"kernel": "nonsense"}, "unknown kernel rule"),
            ({"layers": "nothing"}, "matches none"),
            ({"layers": ["stage:1", "stage:9"]}, "'stage:9' among several patterns matches none of the 11 layers"),
            ({"layers": ["2", "stage:1"]}, "'2' among .* a number stands alone"),
        ],
    )
    def test_plan(self, kwargs, sentence):
        model = build(MOBILENET)
        before = snapshot(model)
        with pytest.raises(PlanError, match=sentence):
            inject(model, Bank.from_pretrained("scale-space-8").resized(3), **kwargs)
        assert_same(snapshot(model), before)

    @pytest.mark.parametrize("parametrize", [parametrizations.weight_norm, parametrizations.spectral_norm])
    def test_a_computed_weight_is_refused(self, parametrize):
        model = build()
        names = list(masterkey.depthwise_layers(model))
        parametrize(model.get_submodule(names[4]))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(PlanError, match=rf"{names[4]} computes its weight"):
            inject(model, "scale-space-8")
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    @pytest.mark.parametrize("act", [eject, freeze, thaw])
    def test_a_weight_that_is_computed_since_is_refused(self, act):
        model = build()
        inject(model, "scale-space-8", freeze=act is not freeze)
        layer = model.stages[2].blocks[0].conv_dw
        masterkey.frozen.thaw_module(layer)
        parametrizations.weight_norm(layer)
        before = snapshot(model)
        with pytest.raises(PlanError, match=r"stages\.2\.blocks\.0\.conv_dw computes its weight"):
            act(model)
        assert_same(snapshot(model), before)
        assert is_frozen(model.stages[0].blocks[0].conv_dw) == (act is not freeze)

    def test_a_distributed_network_is_refused(self, tmp_path):
        store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            plain = build()
            inject(plain, "scale-space-8", layers=1)
            model = nn.parallel.DistributedDataParallel(plain)
            every = (model, torch.compile(model), nn.Sequential(model))
            before = snapshot(model)
            for act in (lambda model: inject(model, "scale-space-8"), eject, freeze, thaw):
                for wrapped in every:
                    with pytest.raises(PlanError, match=r"distributed already \(DistributedDataParallel\)"):
                        act(wrapped)
            assert verify(model) == []
            assert_same(snapshot(model), before)
        finally:
            torch.distributed.destroy_process_group()

    @pytest.mark.parametrize(
        ("weight", "says"),
        [
            (torch.zeros(8, 1, 3, 3, dtype=torch.int8), "1 has weights of int8"),
            (torch.zeros(8, 1, 3, 3, dtype=torch.complex64), "1 has weights of complex64"),
            (torch.zeros(1, 1, 3, 3).expand(8, 1, 3, 3), "1 has an expanded weight"),
        ],
    )
    def test_weights_that_hold_no_filters_are_refused_and_nothing_is_changed(self, weight, says):
        model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=8))
        model[1].weight = nn.Parameter(weight, requires_grad=False)
        before = snapshot(model)
        with pytest.raises(PlanError, match=says):
            inject(model, "scale-space-8")
        assert_same(snapshot(model), before)

    def test_filters_too_large_for_a_layer_are_refused_and_nothing_is_changed(self):
        model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=8).half())
        before = snapshot(model)
        bank = from_state_dict({"a.weight": torch.full((4, 1, 3, 3), 1e6)}, name="large")
        with pytest.raises(PlanError, match="1 holds float16, in which some of its filters are not finite"):
            inject(model, bank)
        assert_same(snapshot(model), before)
        inject(model, bank, scale="unit")
        assert masterkey.verify(model) == []

    def test_the_meta_device_is_refused(self):
        with torch.device("meta"):
            model = build()
        with pytest.raises(PlanError, match="meta device"):
            inject(model, "scale-space-8")

    def test_inference_tensors_are_refused(self):
        with torch.inference_mode():
            model = build()
        with pytest.raises(PlanError, match="inference mode"):
            inject(model, "scale-space-8")

    def test_shared_weights_are_refused(self):
        model = build()
        one, two = list(masterkey.depthwise_layers(model).values())[3:5]
        two.weight = one.weight
        before = snapshot(model)
        with pytest.raises(PlanError, match=r"stages.2.blocks.0.conv_dw shares its weight with stages.2.blocks.1"):
            inject(model, "scale-space-8")
        assert_same(snapshot(model), before)

    def test_weights_shared_with_the_network_itself_are_refused(self):
        model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
        model.weight = model[0].weight
        with pytest.raises(PlanError, match="0 shares its weight with the network itself"):
            inject(model, "scale-space-8")

    @pytest.mark.parametrize("freeze", ["no", 0, None])
    def test_freeze_is_true_or_false(self, freeze):
        with pytest.raises(PlanError, match="freeze is True or False, not "):
            inject(build(), "scale-space-8", freeze=freeze)

    def test_a_shared_layer_counts_once(self):
        layer = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        report = inject(nn.Sequential(nn.Conv2d(3, 8, 1), layer, nn.ReLU(), layer), "scale-space-8")
        assert [row.layer for row in report.rows] == ["1"]

    @pytest.mark.parametrize("name", ["resnet50", "vit_tiny_patch16_224"])
    def test_no_depthwise_layer_is_an_error_that_says_what_there_is(self, name):
        with torch.device("meta"):
            model = build(name)
        with pytest.raises(NoTargetLayersError, match=r"of its \d+ 2-D convolutions \d+ are spatial and 0 grouped"):
            inject(model, "scale-space-8")


class TestLeavesAlone:
    def test_hooks_modes_random_state_and_gradients(self):
        model = build(drop_path_rate=0.1)
        model.stages[1].eval()
        calls = []
        for module in model.modules():
            module.register_forward_hook(lambda *args: calls.append("forward"))
            module.register_forward_pre_hook(lambda *args: calls.append("pre"))
            module.register_full_backward_hook(lambda *args: calls.append("backward"))
        handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
        before, state = snapshot(model), torch.get_rng_state()
        hooks = [list(module._forward_hooks) for module in model.modules()]
        with torch.no_grad():
            inject(model, "scale-space-8", layers=3)
            eject(model)
        handle.remove()
        assert calls == []
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.is_grad_enabled()
        assert [list(module._forward_hooks) for module in model.modules()] == hooks
        assert_same(snapshot(model), before)

    def test_biases_stay_and_learn(self):
        model = build()
        biases = {name: layer.bias.clone() for name, layer in masterkey.depthwise_layers(model).items()}
        inject(model, "scale-space-8")
        layers = masterkey.depthwise_layers(model)
        assert all(torch.equal(layers[name].bias, bias) for name, bias in biases.items())
        train(model)
        assert not any(torch.equal(layers[name].bias, bias) for name, bias in biases.items())

    def test_a_compiled_network_is_not_compiled_for_it(self):
        def refuse(*args):
            raise AssertionError("compiled")

        model = torch.compile(build(), backend=refuse)
        report = inject(model, "scale-space-8")
        assert report.order == "forward"
        assert len(report.replaced) == 9


class TestNetworks:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_narrow_types(self, dtype):
        model = build().to(dtype)
        before = snapshot(model)
        inject(model, "scale-space-8")
        assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {dtype}
        assert verify(model) == []
        expected = depthwise_weights(create_model(CONVNEXT, "scale-space-8"))
        assert equal(depthwise_weights(model), {name: weight.to(dtype) for name, weight in expected.items()})
        eject(model)
        assert_same(snapshot(model), before)

    def test_widening_changes_no_filter(self):
        model = build().half()
        inject(model, "scale-space-8")
        assert verify(model.float()) == verify(model.double()) == []
        assert len(verify(model.bfloat16().float())) == 9

    def test_the_report_is_ready_for_json_whatever_the_seed_is_of(self):
        report = inject(build(), "scale-space-8", seed=np.int64(3), layers=np.int64(1))
        plain = json.loads(json.dumps(report.to_dict()))
        assert (plain["seed"], plain["layers"]) == (3, 1) and "np.int64" not in str(plain)

    def test_the_file_loads_into_plain_timm(self, tmp_path):
        model = create_model(CONVNEXT, "scale-space-8")
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        plain = timm.create_model(CONVNEXT, checkpoint_path=str(tmp_path / "model.safetensors"))
        assert equal(depthwise_weights(plain), depthwise_weights(model))

    @pytest.mark.parametrize("kwargs", [{}, {"feature_cls": "dict"}, {"feature_cls": "hook"}])
    def test_features_only(self, kwargs):
        model = create_model(CONVNEXT, "scale-space-8", features_only=True, **kwargs)
        whole = create_model(CONVNEXT, "scale-space-8")
        assert [w.shape for w in depthwise_weights(model).values()] == [
            w.shape for w in depthwise_weights(whole).values()
        ]
        for one, two in zip(depthwise_weights(model).values(), depthwise_weights(whole).values(), strict=True):
            assert torch.equal(one, two)
        features = model(torch.randn(1, 3, 64, 64))
        assert len(features) == 4

    def test_stages_of_features_only_have_other_names(self):
        model = build(features_only=True)
        report = inject(model, "scale-space-8", layers="stage:2")
        assert len(report.replaced) == 4

    @pytest.mark.parametrize("kwargs", [{"in_chans": 1}, {"in_chans": 5}, {"num_classes": 0}, {"num_classes": 37}])
    def test_other_inputs_and_heads(self, kwargs):
        model = create_model(CONVNEXT, "scale-space-8", **kwargs)
        assert verify(model) == []
        output = model.eval()(torch.randn(1, kwargs.get("in_chans", 3), 64, 64))
        assert output.shape[1] == (kwargs.get("num_classes", 1000) or 64)
        assert inject(build(**kwargs), "scale-space-8").order == "forward"

    @pytest.mark.parametrize(
        ("name", "kwargs"),
        [
            ("csatv2", {}),
            ("csatv2", {"in_chans": 3}),
            ("test_coatnet", {"img_size": 96}),
            ("pit_ti_224", {"img_size": 96}),
        ],
    )
    def test_order_is_that_of_a_forward_pass_where_the_input_is_special(self, name, kwargs):
        with torch.device("meta"):
            model = build(name, **kwargs)
        assert masterkey.depthwise.find_layers(model).order == "forward"

    def test_order_without_a_forward_pass_is_that_of_registration(self):
        class Strange(nn.Sequential):
            def forward(self, x):
                raise RuntimeError("not today")

        model = Strange(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 5, groups=4))
        report = inject(model, "scale-space-8")
        assert report.order == "registration"
        assert [row.layer for row in report.rows] == ["0", "1"]

    def test_order_is_that_of_calls_not_of_registration(self):
        class Backwards(nn.Module):
            def __init__(self):
                super().__init__()
                self.last = nn.Conv2d(8, 8, 3, groups=8)
                self.first = nn.Conv2d(3, 8, 3)
                self.middle = nn.Conv2d(8, 8, 3, groups=8)

            def forward(self, x):
                return self.last(self.middle(self.first(x)))

        model = Backwards()
        model.pretrained_cfg = {"input_size": (3, 32, 32)}
        assert list(masterkey.depthwise_layers(model)) == ["middle", "last"]

    def test_order_where_a_depthwise_convolution_sees_the_picture(self):
        class Backwards(nn.Module):
            def __init__(self):
                super().__init__()
                self.last = nn.Conv2d(5, 5, 3, groups=5)
                self.first = nn.Conv2d(5, 5, 5, groups=5)

            def forward(self, x):
                return self.last(self.first(x))

        found = masterkey.depthwise.find_layers(Backwards())
        assert (found.order, [layer.name for layer in found.layers]) == ("forward", ["first", "last"])

    def test_looking_for_layers_draws_nothing_from_the_callers_generator(self):
        class Noisy(nn.Sequential):
            def forward(self, x):
                return super().forward(x) + torch.rand(1)

        model = Noisy(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4))
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        masterkey.depthwise_layers(model)
        assert torch.equal(torch.rand(1), expected)


class TestControlsInNetworks:
    def test_random_deals_out_the_networks_own_weights_even_after_another_bank(self):
        own = depthwise_weights(build())
        model = build()
        inject(model, "scale-space-8")
        inject(model, "random", seed=4)
        straight = build()
        inject(straight, "random", seed=4)
        assert equal(depthwise_weights(model), depthwise_weights(straight))
        for name, weight in depthwise_weights(model).items():
            assert torch.equal(weight.flatten().sort().values, own[name].flatten().sort().values)
            assert not torch.equal(weight, own[name])

    def test_target_scale_measures_the_networks_own_weights_even_after_another_bank(self):
        model = build()
        inject(model, "scale-space-8")
        inject(model, "scale-space-8", scale="target")
        own = depthwise_weights(build())
        for name, weight in depthwise_weights(model).items():
            assert torch.allclose(weight.std(), own[name].std(), rtol=1e-4)


def test_a_lazy_layer_elsewhere_is_no_obstacle():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 7, groups=8), nn.Flatten(), nn.LazyLinear(3))
    report = inject(model, "scale-space-8")
    assert (report.trainable_before, report.trainable_after) == (3 * 8 * 9 + 8 + 8 * 49 + 8, 3 * 8 * 9 + 8 + 8)


def test_a_name_is_no_network():
    for look in (masterkey.depthwise_layers, masterkey.depthwise.require_layers, lambda name: inject(name, "random")):
        with pytest.raises(PlanError, match=r"a network is a torch\.nn\.Module, not 'convnext_atto'; .*create_model"):
            look("convnext_atto")


def on_a_gpu(model):
    """A DataParallel as it is where there is a GPU: it takes no picture but one that lies there."""
    wrapped = nn.DataParallel(model)
    wrapped.device_ids, wrapped.output_device, wrapped.dim = [0], 0, 0
    wrapped.src_device_obj = torch.device("cuda:0")
    return wrapped


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, on_a_gpu, torch.compile, lambda model: torch.compile(on_a_gpu(model)), AveragedModel],
    ids=["DataParallel", "on a GPU", "compiled", "both", "averaged"],
)
def test_a_wrapped_network_is_the_network(wrap):
    model, plain = Crossed(), Crossed()
    wrapped = wrap(model)
    prefix = unwrapped(wrapped)[1]
    assert list(masterkey.depthwise_layers(wrapped)) == [f"{prefix}early", f"{prefix}late"]
    report = inject(wrapped, "scale-space-8", layers="early")
    assert report.to_dict() == inject(plain, "scale-space-8", layers="early").to_dict()
    assert verify(wrapped) == []
    own = Bank.from_model(wrapped)
    inject(wrapped, own, policy="layerwise")  # as docs/timm.md freezes what a network holds
    assert all(
        torch.equal(own.layers[f"{name}.weight"], filters)
        for name, filters in depthwise_weights(unwrapped(wrapped)[0]).items()
    )
    eject(wrapped)
    with pytest.raises(NotInjectedError):
        verify(wrapped)


def test_an_order_that_is_not_that_of_a_forward_pass_is_said():
    class Net(nn.Sequential):
        pretrained_cfg = "my.yaml"

        def forward(self, images):
            return super().forward(images) if images.sum() > 0 else images

    model = Net(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 7, groups=8))
    assert "layers in order of registration" in str(inject(model, "scale-space-8"))
    assert "order" not in str(inject(build(), "scale-space-8"))


@pytest.mark.parametrize("number", [np.int64(2), np.int64(-2)])
def test_a_number_of_numpys_is_a_number(number):
    model = build()
    report = inject(model, "scale-space-8", layers=number)
    assert [row.replaced for row in report.rows].count(True) == 2
