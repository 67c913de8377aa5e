"""The frozen convolution against PyTorch's own."""

import copy
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
import torch.nn.functional as F
from networks import assert_same, snapshot
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from masterkey import create_model, freeze, inject
from masterkey.errors import PlanError
from masterkey.frozen import freeze_module, frozen_conv2d, thaw_module

# All distinct (class, kernel, stride, padding, multiplier) of the spatial depthwise layers of timm 1.0.31's 1,371
# models as built by default; the dilation is 1 throughout.
TIMM_LAYERS = [
    (nn.Conv2d, (1, 5), 1, (0, 2), 1),
    (nn.Conv2d, (1, 9), 1, (0, 4), 1),
    (nn.Conv2d, (1, 11), 1, (0, 5), 1),
    (nn.Conv2d, (2, 2), 1, (0, 0), 1),
    (nn.Conv2d, (2, 2), 2, (0, 0), 1),
    (nn.Conv2d, (3, 3), 1, (1, 1), 1),
    (nn.Conv2d, (3, 3), 1, (1, 1), 2),
    (nn.Conv2d, (3, 3), 2, (1, 1), 1),
    (nn.Conv2d, (3, 3), 2, (1, 1), 2),
    (nn.Conv2d, (3, 3), 4, (1, 1), 1),
    (nn.Conv2d, (5, 1), 1, (2, 0), 1),
    (nn.Conv2d, (5, 5), 1, (2, 2), 1),
    (nn.Conv2d, (5, 5), 2, (2, 2), 1),
    (nn.Conv2d, (5, 5), 2, (2, 2), 2),
    (nn.Conv2d, (7, 7), 1, "same", 1),
    (nn.Conv2d, (7, 7), 1, (3, 3), 1),
    (nn.Conv2d, (7, 7), 2, (3, 3), 1),
    (nn.Conv2d, (7, 7), 2, (3, 3), 2),
    (nn.Conv2d, (9, 1), 1, (4, 0), 1),
    (nn.Conv2d, (9, 9), 1, "same", 1),
    (nn.Conv2d, (9, 9), 1, (4, 4), 1),
    (nn.Conv2d, (9, 9), 2, (4, 4), 1),
    (nn.Conv2d, (9, 9), 2, (4, 4), 2),
    (nn.Conv2d, (11, 1), 1, (5, 0), 1),
    (nn.Conv2d, (11, 11), 2, (5, 5), 1),
    (Conv2dSame, (2, 2), 1, (0, 0), 1),
    (Conv2dSame, (3, 3), 2, (0, 0), 1),
    (Conv2dSame, (5, 5), 2, (0, 0), 1),
    (Conv2dSame, (7, 7), 2, (0, 0), 1),
    (Conv2dSame, (9, 9), 2, (0, 0), 1),
    (Conv2dSame, (11, 11), 2, (0, 0), 1),
]
# What timm builds with output_stride=8 or 16, and what nothing in timm asks for but a user may.
OTHER_LAYERS = [
    (nn.Conv2d, (3, 3), 1, (2, 2), 1, 2),
    (nn.Conv2d, (5, 5), 1, (4, 4), 1, 2),
    (nn.Conv2d, (7, 7), 1, (6, 6), 1, 2),
    (nn.Conv2d, (3, 3), 1, (4, 4), 1, 4),
    (nn.Conv2d, (3, 3), 1, "same", 2, (1, 2)),
    (nn.Conv2d, (2, 2), 1, "same", 1, 2),
    (nn.Conv2d, (2, 2), 1, "same", 1, 1),
    (nn.Conv2d, (3, 3), 1, "valid", 1, 1),
    (nn.Conv2d, (3, 3), 1, (0, 2), 3, 1),
    (nn.Conv2d, (3, 3), 1, (3, 1), 1, 1),
]
SLOW = {  # of those with stride 1
    (Conv2dSame, (2, 2), 1, (0, 0), 1, 1): "has a forward of its own",
    (nn.Conv2d, (2, 2), 1, "same", 1, 1): "pads on one side only",
    (nn.Conv2d, (3, 3), 1, (3, 1), 1, 1): "pads by more than the filter's reach",
}
LAYERS = [(*layer, 1) for layer in TIMM_LAYERS] + OTHER_LAYERS


def make_pair(layer: tuple) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A trainable layer in float64, and the same one frozen."""
    cls, kernel, stride, padding, multiplier, dilation = layer
    torch.manual_seed(0)
    plain = cls(2, 2 * multiplier, kernel, stride, padding, dilation, groups=2).double()
    frozen = copy.deepcopy(plain)
    freeze_module(frozen)
    return plain, frozen


def derivatives(output: Tensor, *inputs: Tensor) -> list[Tensor]:
    """First and second derivatives of a function of the output that has both."""
    first = torch.autograd.grad(output.sin().sum(), inputs, create_graph=True)
    return [*first, *torch.autograd.grad(sum(part.square().sum() for part in first), inputs)]


def on_fast_path(output: Tensor) -> bool:
    return type(output.grad_fn).__name__ == "_FrozenConv2dBackward"


def names(layer: tuple) -> str:
    return f"{layer[0].__name__}-" + "-".join(str(part).replace(" ", "") for part in layer[1:])


@pytest.mark.parametrize("layer", LAYERS, ids=names)
def test_gradients_are_those_of_conv2d(layer):
    plain, frozen = make_pair(layer)
    bias = frozen.bias.detach().clone().requires_grad_()
    image = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    def run(module: nn.Module, image: Tensor, bias: Tensor) -> Tensor:
        return functional_call(module, {"bias": bias}, (image,))

    expected, output = run(plain, image, bias), run(frozen, image, bias)
    assert on_fast_path(output) == (layer[2] == 1 and layer not in SLOW)
    assert torch.equal(output, expected)

    for got, want in zip(derivatives(output, image, bias), derivatives(expected, image, bias), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *args: run(frozen, *args), (image, bias))
    assert torch.autograd.gradgradcheck(lambda *args: run(frozen, *args), (image, bias), fast_mode=True)


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer[2] == 1 and layer not in SLOW], ids=names)
def test_fast_path_saves_the_weight_and_nothing_else(layer):
    _, frozen = make_pair(layer)
    saved: list[int] = []
    image = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        frozen(image)
    assert saved == [frozen.weight.data_ptr()]


def test_third_derivative_through_the_function():
    _, frozen = make_pair((nn.Conv2d, (3, 3), 1, (1, 1), 2, 1))
    image = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight, args = frozen.weight, ((1, 1), (1, 1), (1, 1), 2)

    def third(convolve: Callable[..., Tensor]) -> Tensor:
        derivative = convolve(image, weight, None, *args).pow(4).sum()
        for _ in range(3):
            (derivative,) = torch.autograd.grad(derivative.sum(), image, create_graph=True)
        return derivative

    torch.testing.assert_close(third(frozen_conv2d), third(F.conv2d))


class Operations(TorchDispatchMode):
    """Notes the name of every operation that reaches the dispatcher."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("image_learns", [False, True])
@pytest.mark.parametrize("bias_learns", [False, True])
def test_only_what_is_needed_is_computed(image_learns, bias_learns):
    layer = nn.Conv2d(2, 2, 3, padding=1, groups=2)
    freeze_module(layer)
    layer.bias.requires_grad_(bias_learns)
    image = torch.randn(1, 2, 5, 4, requires_grad=image_learns)
    output = layer(image)
    assert output.requires_grad == (image_learns or bias_learns)
    if output.requires_grad:
        with Operations() as operations:
            output.backward(torch.ones_like(output))
        assert ("convolution" in operations.names) == image_learns
        assert ("sum" in operations.names) == bias_learns
        assert "convolution_backward" not in operations.names
    with torch.no_grad():
        assert layer(image).grad_fn is None


def test_falls_back_to_conv2d():
    image = torch.randn(2, 4, 6, 6, requires_grad=True)
    weight = torch.randn(4, 1, 3, 3)
    args = (None, (1, 1), (1, 1), (1, 1), 4)
    assert on_fast_path(frozen_conv2d(image, weight, *args))
    assert not on_fast_path(frozen_conv2d(image[0], weight, *args))  # no batch
    trainable = weight.clone().requires_grad_()
    frozen_conv2d(image, trainable, *args).sum().backward()
    assert trainable.grad is not None

    for layer in (
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="circular"),
    ):
        expected = layer(image)
        freeze_module(layer)
        assert not on_fast_path(layer(image))
        assert torch.equal(layer(image), expected)


def test_a_subclass_keeps_its_own_convolution():
    class Scaled(nn.Conv2d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return super()._conv_forward(input, 2 * weight, bias)

    layer, image = Scaled(4, 4, 3, groups=4), torch.randn(1, 4, 5, 5)
    expected = layer(image)
    freeze_module(layer)
    assert torch.equal(layer(image), expected)


@pytest.mark.parametrize("backward_in_autocast", [False, True])
def test_autocast(backward_in_autocast):
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, 7, padding=3, groups=8)
    frozen = copy.deepcopy(plain)
    freeze_module(frozen)
    images = [torch.randn(2, 8, 9, 9).requires_grad_() for _ in range(2)]
    images[1].data.copy_(images[0].data)
    for layer, image in zip((plain, frozen), images, strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(image)
            loss = output.float().square().sum()
            if backward_in_autocast:
                loss.backward()
        if not backward_in_autocast:
            loss.backward()
        assert output.dtype == torch.bfloat16
        assert image.grad.dtype == layer.bias.grad.dtype == torch.float32
    assert on_fast_path(output)
    torch.testing.assert_close(images[1].grad, images[0].grad, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(frozen.bias.grad, plain.bias.grad, rtol=2e-2, atol=2e-1)

    with torch.autocast("cpu", torch.bfloat16):  # which leaves float64 alone
        image = images[0].detach().double().requires_grad_()
        output = frozen.double()(image)
        output.sum().backward()
    assert output.dtype == image.grad.dtype == frozen.bias.grad.dtype == torch.float64


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_is_preserved(memory_format):
    layer = nn.Conv2d(8, 8, 7, padding=3, groups=8).to(memory_format=memory_format)
    freeze_module(layer)
    image = torch.randn(2, 8, 9, 9).to(memory_format=memory_format).requires_grad_()
    output = layer(image)
    assert output.is_contiguous(memory_format=memory_format)
    (grad,) = torch.autograd.grad(output, image, torch.randn_like(output))
    assert grad.is_contiguous(memory_format=memory_format)


def test_what_is_frozen_in_inference_mode_trains_later():
    layer = nn.Conv2d(4, 4, 3, groups=4)
    with torch.inference_mode():
        freeze_module(layer)
    x = torch.randn(2, 4, 5, 5, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and layer.bias is not None and layer.bias.grad is not None


def test_gradients_per_picture_by_vmap():
    """As influence functions and differential privacy take them: torch.func over the whole network."""
    model = create_model("test_convnext", "scale-space-8", num_classes=3).eval()
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    pictures, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 2, 1])

    def loss(parameters, picture, label):
        logits = functional_call(model, (parameters, buffers), (picture[None],))
        return F.cross_entropy(logits, label[None])

    together = vmap(grad(loss), (None, 0, 0))(parameters, pictures, labels)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        alone = torch.autograd.grad(loss(parameters, picture, label), list(parameters.values()))
        for name, gradient in zip(parameters, alone, strict=True):
            torch.testing.assert_close(together[name][i], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transform", ["vmap of grad", "jvp"])
def test_transforms_inside_torch_compile(transform):
    """torch.compile traces none of them through a function of ours."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 5, padding=2, groups=4), nn.Flatten(), nn.Linear(4 * 36, 3))
    inject(model, "scale-space-8")
    weights, images = {name: p.detach() for name, p in model.named_parameters()}, torch.randn(2, 4, 6, 6)

    def per_picture(images):
        def loss(weights, picture):
            return functional_call(model, weights, (picture[None],)).square().sum()

        return vmap(grad(loss), in_dims=(None, 0))(weights, images)

    function = per_picture if transform == "vmap of grad" else lambda images: jvp(model, (images,), (images.cos(),))[1]
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(function, backend="aot_eager", fullgraph=True)(images), function(images))


def test_threads_that_freeze_at_once_make_one_class():
    class Mine(nn.Conv2d):
        pass

    together = threading.Barrier(8)
    layers = [Mine(4, 4, 3, groups=4) for _ in range(8)]

    def act(layer):
        together.wait()
        freeze_module(layer)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(act, layers))
    finally:
        sys.setswitchinterval(before)
    assert len({type(layer) for layer in layers}) == 1
    for layer in layers:
        thaw_module(layer)
        assert type(layer) is Mine


# --- forward derivatives ---


def test_forward_derivatives_are_those_of_the_plain_network():
    model = create_model("test_convnext", "scale-space-8", num_classes=3).eval().double()
    plain = timm.create_model("test_convnext", num_classes=3).eval().double()
    plain.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    images, along = (torch.randn(2, 3, 32, 32, dtype=torch.double) for _ in range(2))
    for net in (model, plain):
        output, tangent = jvp(net, (images,), (along,))
        assert output.shape == tangent.shape == (2, 3)
        if net is model:
            expected = tangent
    assert torch.allclose(tangent, expected, rtol=1e-10)

    # by the weights that learn, biases of frozen layers among them
    weights = dict(model.named_parameters())
    directions = {name: torch.randn_like(weight) for name, weight in weights.items()}
    tangent = jvp(lambda given: functional_call(model, given, (images,)), (weights,), (directions,))[1]
    all_weights = dict(plain.named_parameters())
    still = {name: directions.get(name, torch.zeros_like(weight)) for name, weight in all_weights.items()}
    expected = jvp(lambda given: functional_call(plain, given, (images,)), (all_weights,), (still,))[1]
    assert torch.allclose(tangent, expected, rtol=1e-10)


def test_second_derivatives_by_forward_over_reverse():
    plain = nn.Conv2d(2, 4, 3, padding=1, groups=2).double()
    frozen = copy.deepcopy(plain)
    freeze_module(frozen)
    images = torch.randn(1, 2, 4, 4, dtype=torch.double)
    found, expected = (hessian(lambda x, net=net: net(x).pow(3).sum())(images) for net in (frozen, plain))
    assert torch.allclose(found, expected, rtol=1e-10)


def test_a_frozen_filter_has_no_tangent():
    frozen = nn.Conv2d(2, 2, 3, padding=1, groups=2)
    freeze_module(frozen)
    images, weight = torch.randn(1, 2, 4, 4), frozen.weight
    with pytest.raises(NotImplementedError, match="thaw the network"):
        jvp(lambda given: functional_call(frozen, {"weight": given}, (images,)), (weight,), (weight,))


class NotToBeSubclassed(nn.Conv2d):
    def __init_subclass__(cls, reason: str) -> None: ...


def test_a_layer_whose_class_cannot_be_frozen_stays_as_it_was():
    layer = NotToBeSubclassed(4, 4, 3, groups=4)
    with pytest.raises(PlanError, match=r"allows no subclass .*reason"):
        freeze_module(layer)
    assert type(layer) is NotToBeSubclassed and list(layer._parameters) == ["weight", "bias"] and not layer._buffers


@pytest.mark.parametrize("act", [lambda model: inject(model, "scale-space-8"), freeze])
def test_a_network_with_such_a_layer_stays_as_it_was(act):
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), NotToBeSubclassed(4, 4, 3, groups=4))
    if act is freeze:
        inject(model, "scale-space-8", freeze=False)
    before = snapshot(model)
    with pytest.raises(PlanError, match="allows no subclass"):
        act(model)
    assert_same(snapshot(model), before)


def test_an_assigned_parameter_is_no_frozen_filter_and_thawing_says_so():
    layer = nn.Conv2d(4, 4, 3, groups=4)
    freeze_module(layer)
    del layer.weight
    layer.weight = nn.Parameter(torch.ones(4, 1, 3, 3))
    thaw_module(layer)
    assert type(layer) is nn.Conv2d and layer.weight.requires_grad


def test_thawing_leaves_a_bias_that_is_computed_since():
    layer = nn.Conv2d(4, 4, 3, groups=4)
    freeze_module(layer)
    parametrize.register_parametrization(layer, "bias", nn.Softplus())
    thaw_module(layer)
    assert isinstance(layer.weight, nn.Parameter) and bool((layer.bias > 0).all())
    layer(torch.randn(1, 4, 5, 5)).sum().backward()
    assert layer.weight.grad is not None and layer.parametrizations.bias.original.grad is not None


@pytest.mark.parametrize("biased", [True, False])
def test_filters_follow_parameters_that_were_cast_without_them(biased):
    """As FSDP2 casts parameters in mixed precision, and buffers not."""
    layer = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=biased)
    freeze_module(layer)
    images = torch.randn(1, 4, 8, 8).bfloat16().requires_grad_()
    if layer.bias is not None:
        layer.bias.data = layer.bias.data.bfloat16()
    output = layer(images)
    assert output.dtype == torch.bfloat16 and layer.weight.dtype == torch.float32
    assert torch.equal(output, F.conv2d(images, layer.weight.bfloat16(), layer.bias, padding=1, groups=4))
    output.sum().backward()
    assert images.grad.dtype == torch.bfloat16 and (layer.bias is None or layer.bias.grad is not None)
    with pytest.raises(RuntimeError):  # a picture of the wrong type stays an error
        nn.Conv2d.forward(layer, torch.randn(1, 4, 8, 8).double())


class Own(nn.Conv2d):
    """Somebody's own class, into which FX traces."""


class Fixed(nn.Conv2d):
    def __setattr__(self, key, value):
        if key == "__class__":
            raise RuntimeError("it is fixed")
        super().__setattr__(key, value)


def test_a_gradient_by_batched_weights_is_that_of_a_plain_convolution():
    """vmap hides from a weight that a gradient by it is asked for."""
    inputs, weights = torch.randn(2, 3, 4, 9, 9), torch.randn(2, 4, 1, 3, 3)

    def energy(weight, images):
        return frozen_conv2d(images, weight, None, (1, 1), (1, 1), (1, 1), 4).square().sum()

    def plain(weight, images):
        return F.conv2d(images, weight, None, 1, 1, 1, 4).square().sum()

    expected = torch.stack([grad(plain)(weight, images) for weight, images in zip(weights, inputs, strict=True)])
    asked = weights.clone().requires_grad_()
    vmap(energy)(asked, inputs).sum().backward()
    assert torch.allclose(asked.grad, expected, atol=1e-4)
    assert torch.allclose(grad(lambda w: vmap(energy)(w, inputs).sum())(weights), expected, atol=1e-4)
    assert torch.allclose(vmap(grad(energy))(weights, inputs), expected, atol=1e-4)


def test_fx_traces_a_class_of_somebodys_own():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Own(8, 8, 3, groups=8, padding=1))
    inject(model, "scale-space-8")
    traced = torch.fx.symbolic_trace(model)
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(traced(images), model(images))


def test_a_state_that_is_assigned_is_copied_into_frozen_filters():
    """Another network's training must not reach them through shared memory."""
    other, model = (nn.Sequential(nn.Conv2d(8, 8, 3, groups=8)) for _ in range(2))
    inject(model, "scale-space-8")
    state = {key: value.detach().clone().requires_grad_() for key, value in other.state_dict().items()}
    for given in (other.state_dict(), state):
        model.load_state_dict(given, assign=True)
        loaded = model[0].weight.clone()
        assert torch.equal(loaded, given["0.weight"]) and not model[0].weight.requires_grad
        with torch.no_grad():
            given["0.weight"].add_(1)
        assert torch.equal(model[0].weight, loaded)


def test_layers_that_cannot_change_their_class_are_refused_before_anything_is_changed():
    fixed = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), Fixed(8, 8, 3, groups=8))
    halved = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=8))
    parametrize.register_parametrization(halved[1], "bias", nn.Identity())
    for model, words in (
        (fixed, "its class cannot be changed .it is fixed."),
        (halved, "the bias of a .* parametrized"),
    ):
        before = snapshot(model)
        with pytest.raises(PlanError, match=words):
            inject(model, "scale-space-8")
        assert_same(before, snapshot(model))
    parametrize.remove_parametrizations(halved[1], "bias")
    assert inject(halved, "scale-space-8").rows[1].replaced
