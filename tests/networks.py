"""Small networks for the tests, and what an injection could change about them."""

import timm
import torch
from torch import nn

import masterkey

CONVNEXT = "test_convnext"  # nine 7x7 layers of 24 to 64 filters
MOBILENET = "mobilenetv3_small_050"  # eleven layers, 3x3 and 5x5


def build(name=CONVNEXT, seed=0, **kwargs):
    torch.manual_seed(seed)
    return timm.create_model(name, **kwargs)


def snapshot(model):
    """Everything that an injection could change."""
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "parameters": [(name, p.requires_grad) for name, p in model.named_parameters()],
        "buffers": [name for name, _ in model.named_buffers()],
        "order": [list(module._parameters) for module in model.modules()],
        "classes": [type(module) for module in model.modules()],
        "attributes": [set(vars(module)) for module in model.modules()],
        "modes": [module.training for module in model.modules()],
    }


def assert_same(one, two):
    assert list(one["state"]) == list(two["state"])
    for name, tensor in one["state"].items():
        assert tensor.dtype == two["state"][name].dtype
        assert torch.equal(tensor, two["state"][name]), name
    for key in set(one) - {"state"}:
        assert one[key] == two[key], key


def depthwise_weights(model):
    return {name: layer.weight.detach().clone() for name, layer in masterkey.depthwise_layers(model).items()}


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def train(model, steps=2):
    """Take real steps with weight decay on everything that is a parameter."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()


class Crossed(nn.Module):
    """Registers its layers in another order than it calls them in."""

    def __init__(self):
        super().__init__()
        self.late = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.early = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.stem = nn.Conv2d(3, 8, 1)

    def forward(self, images):
        return self.late(self.early(self.stem(images)))
