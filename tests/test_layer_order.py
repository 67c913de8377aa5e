"""In which order the layers of a network are found: that of its own forward pass."""

import threading

import pytest
import torch
from networks import Crossed, assert_same, depthwise_weights, equal, snapshot
from torch import nn

import masterkey
from masterkey import Bank, inject


def test_the_order_does_not_depend_on_what_a_forward_pass_left_behind():
    class Net(Crossed):
        def forward(self, images):
            self.features = [self.stem(images)]
            return self.late(self.early(self.features[0]))

    model, bank = Net(), Bank.from_pretrained("convnext-atto.tiny-imagenet")
    inject(model, bank)
    before = depthwise_weights(model)
    model(torch.randn(1, 3, 16, 16))
    inject(model, bank)
    assert list(masterkey.depthwise_layers(model)) == ["early", "late"]
    assert equal(depthwise_weights(model), before)


class Watcher:
    """As a logger's hook: its lock cannot be copied."""

    def __init__(self):
        self.lock, self.calls = threading.Lock(), 0

    def __call__(self, module, inputs, output):
        self.calls += 1


@pytest.mark.parametrize(
    "hang", [lambda net, it: net.register_forward_hook(it), lambda net, it: setattr(net, "log", it)]
)
def test_the_order_does_not_depend_on_what_hangs_on_a_network(hang):
    model, plain, watcher = Crossed(), Crossed(), Watcher()
    hang(model.early, watcher)
    model.late.register_full_backward_hook(watcher)
    report = inject(model, "scale-space-8")
    assert report.to_dict() == inject(plain, "scale-space-8").to_dict()
    assert (report.order, [row.layer for row in report.rows]) == ("forward", ["early", "late"])
    assert watcher.calls == 0
    model(torch.randn(1, 3, 8, 8, requires_grad=True)).sum().backward()  # and it hangs there still
    assert watcher.calls > 0 and len(model.late._backward_hooks) == 1


def test_a_network_that_cannot_be_copied_says_so(caplog):
    class Single(Crossed):
        def __deepcopy__(self, memo):
            raise RuntimeError("there is one of me")

    assert inject(Single(), "scale-space-8").order == "registration"
    assert "Single cannot be copied, so its layers are taken as registered: there is one of me" in caplog.text


class WithNorm(Crossed):
    """Its norm has a state that a forward pass in training mode changes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images):
        return self.late(self.early(self.norm(self.stem(images))))


def hide_by_decorator(module):
    module.forward = torch.no_grad()(module.forward)


def hide_by_lambda(module):
    original = module.forward
    module.forward = lambda *args: original(*args)


@pytest.mark.parametrize("hide", [hide_by_decorator, hide_by_lambda])
@pytest.mark.parametrize("part", ["", "1"])
def test_a_function_in_the_place_of_forward_is_left_out_of_the_copy(hide, part):
    model = nn.Sequential(nn.Identity(), WithNorm())
    hide(model.get_submodule(part))
    before = snapshot(model)
    found = masterkey.depthwise.find_layers(model)
    assert (found.order, [layer.name for layer in found.layers]) == ("forward", ["1.early", "1.late"])
    assert_same(snapshot(model), before)  # the norm has counted no batch
    assert "forward" in vars(model.get_submodule(part))


def test_a_network_is_not_run_by_a_function_that_the_copy_has_of_it():
    class Net(WithNorm):
        def __init__(self):
            super().__init__()
            self.begin = lambda images: self.norm(self.stem(images))

        def forward(self, images):
            return self.late(self.early(self.begin(images)))

    model = Net()
    before = snapshot(model)
    assert masterkey.depthwise.find_layers(model).order == "registration"
    assert_same(snapshot(model), before)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 8, 8, 8)  # its own calls are free again


def test_a_pass_that_calls_none_of_the_layers_gives_no_order():
    class Net(Crossed):
        def forward(self, images):
            x = self.stem(images)
            for layer in (self.early, self.late):
                x = nn.functional.conv2d(x, layer.weight, groups=8)
            return x

    found = masterkey.depthwise.find_layers(Net())
    assert (found.order, [layer.name for layer in found.layers]) == ("registration", ["late", "early"])


def test_a_compiled_block_is_followed_without_a_warning(recwarn):
    model = nn.Sequential(torch.compile(Crossed(), backend="eager"))
    found = masterkey.depthwise.find_layers(model)
    expected = ["0._orig_mod.early", "0._orig_mod.late"]
    assert (found.order, [layer.name for layer in found.layers]) == ("forward", expected)
    assert [str(each.message) for each in recwarn] == []


@pytest.mark.parametrize(
    ("kind", "order"), [("depthwise", ["0.early", "0.late"]), ("all", ["0.stem", "0.early", "0.late"])]
)
def test_the_order_stands_where_only_the_head_fails(kind, order):
    # of no size that is tried are there 8 x 9 x 9 numbers
    model = nn.Sequential(Crossed(), nn.Flatten(), nn.Linear(8 * 9 * 9, 3))
    found = masterkey.depthwise.find_layers(model, kind)
    assert (found.order, [layer.name for layer in found.layers]) == ("forward", order)


@pytest.mark.parametrize("side", [32, 64, 96, 128])
def test_the_order_of_a_network_for_small_pictures_only(side):
    class Net(Crossed):
        def forward(self, images):
            return super().forward(images.reshape(1, 3, side, side))

    found = masterkey.depthwise.find_layers(Net())
    assert (found.order, [layer.name for layer in found.layers]) == ("forward", ["early", "late"])


class Trainer:
    """Refers back to the network that holds it, as a trainer does."""

    def __init__(self, model):
        self.model = model


class Logger:
    def __init__(self):
        self.lock = threading.Lock()


def test_the_order_does_not_depend_on_which_of_two_things_was_hung_on_first():
    one, other = Crossed(), Crossed()
    one.trainer, one.logger = Trainer(one), Logger()
    one.trainer.lock = threading.Lock()
    other.logger, other.trainer = Logger(), Trainer(other)
    other.trainer.lock = threading.Lock()
    reports = [inject(model, "scale-space-8").to_dict() for model in (one, other, Crossed())]
    assert reports[0] == reports[1] == reports[2] and reports[0]["order"] == "forward"


def test_a_stage_is_the_same_by_a_layers_name_and_by_its_parameters():
    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, groups=8, padding=1) for _ in range(3))

        def forward(self, images):
            for layer in self.layers:
                images = layer(images)
            return images

    bank = Bank.from_model(Numbered())
    assert [layer.stage for layer in bank.metadata.layers] == [0, 1, 2]
    assert list(bank.select(layers="stage:1").layers) == ["layers.1.weight"]
    assert [row.replaced for row in inject(Numbered(), bank, layers="stage:1").rows] == [False, True, False]
