"""bfloat16 on a CPU without instructions for it: the same arithmetic, in float32."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tints import (
    PLAIN,
    curve_bytes,
    network_with_bank,
    one_thread,  # noqa: F401
    tints,
)
from torch import nn

from masterkey.benchmarks import bfloat16
from masterkey.benchmarks.bfloat16 import are_products_wide, products
from masterkey.benchmarks.training import train

CPU = torch.device("cpu")


@pytest.fixture
def no_instructions(monkeypatch):
    """A CPU like that, whatever this one is."""
    monkeypatch.setattr(bfloat16, "are_products_wide", lambda device: device.type == "cpu")


def learn_once(net, images):
    """Gradients of all parameters and of the pictures, under autocast."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = net(images)
    output.float().square().mean().backward()
    return [output.detach(), images.grad, *(parameter.grad for parameter in net.parameters())]


class Products(nn.Module):
    """Every kind of product that a network makes."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Conv2d(3, 8, 4, stride=4)
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.linear = nn.Linear(8, 6, bias=False)
        self.head = nn.Linear(6, 5)

    def forward(self, images):
        maps = self.depthwise(self.dense(images)).flatten(2).transpose(1, 2)
        maps = torch.softmax(maps @ maps.transpose(1, 2), -1) @ maps
        return self.head(self.linear(maps))


@pytest.mark.usefixtures("no_instructions")
def test_products_are_those_of_bfloat16_but_for_the_order_of_sums():
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32)
    net, other = Products(), Products()
    other.load_state_dict(net.state_dict())
    plain = learn_once(net, images)
    with products(True, CPU):
        wide = learn_once(other, images)
    for one, two in zip(plain, wide, strict=True):
        assert one.dtype == two.dtype and one.shape == two.shape and one.stride() == two.stride()
        assert float((one - two).float().norm() / one.float().norm()) < 0.01  # bfloat16 has 8 bits: 0.4 % a rounding


@pytest.mark.usefixtures("no_instructions")
@pytest.mark.parametrize("product", [torch.mm, F.linear, lambda a, b: F.conv2d(a[..., None, None], b[..., None, None])])
def test_one_product_is_rounded_once(product):
    torch.manual_seed(0)
    left, right = (torch.randn(64, 64).bfloat16() for _ in range(2))
    exact = product(left.double(), right.double())
    with products(True, CPU):
        found = product(left, right)
    assert found.dtype == torch.bfloat16
    # half a step of bfloat16 beside the exact value, and a little for sums in float32
    assert ((found.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-5).all()


@pytest.mark.usefixtures("no_instructions")
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_every_product_is_computed_in_float32_wherever_it_is_called(context, monkeypatch):
    torch.manual_seed(0)
    net, images, seen = Products().eval(), torch.randn(2, 3, 32, 32), []
    plain = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: seen.append(tensor.dtype) or plain(tensor))
    with context(), products(True, CPU), torch.autocast("cpu", torch.bfloat16):
        output = net(images)
    assert output.dtype == torch.bfloat16
    # pictures, filters and bias of two convolutions; two products of maps; a Linear layer without a bias and one with
    assert seen == [torch.bfloat16] * (3 + 3 + 2 + 2 + 2 + 3)


@pytest.mark.usefixtures("no_instructions")
def test_only_products_of_bfloat16_are_touched(monkeypatch):
    seen = []
    plain = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: seen.append(tensor.dtype) or plain(tensor))
    with products(True, CPU):
        torch.mm(torch.ones(2, 2), torch.ones(2, 2))
        torch.ones(2, 2, dtype=torch.bfloat16).exp()
        assert seen == []
        torch.mm(*(torch.ones(2, 2, dtype=torch.bfloat16) for _ in range(2)))
        assert seen == [torch.bfloat16] * 2
    with products(False, CPU):
        torch.mm(*(torch.ones(2, 2, dtype=torch.bfloat16) for _ in range(2)))
    assert len(seen) == 2


@pytest.mark.usefixtures("no_instructions")
def test_a_run_is_repeatable_and_like_the_plain_one(monkeypatch):
    config = replace(PLAIN, amp=True, epochs=3)
    first, again = (train(network_with_bank(), tints(), config, seed=0) for _ in range(2))
    assert curve_bytes(first) == curve_bytes(again)
    monkeypatch.setattr(bfloat16, "are_products_wide", lambda device: False)
    plain = train(network_with_bank(), tints(), config, seed=0)
    for one, two in zip(first.curve, plain.curve, strict=True):
        assert one.train_loss == pytest.approx(two.train_loss, rel=0.02)
        assert one.loss == pytest.approx(two.loss, rel=0.05)


def test_a_gpu_computes_its_own_products():
    assert not are_products_wide(torch.device("cuda"))


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="asks the kernel what the CPU has")
def test_what_the_cpu_has_decides():
    words = set(Path("/proc/cpuinfo").read_text().split())
    if "avx512_bf16" in words:
        assert not are_products_wide(CPU)
    if not words & {"avx512bw", "avx_ne_convert", "asimd"}:
        assert are_products_wide(CPU)
