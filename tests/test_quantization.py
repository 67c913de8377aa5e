"""Torch's static quantisation knows layers by their exact class: a frozen one stays in float until it is thawed."""

from collections import Counter

import pytest
import torch
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import masterkey


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("thawed", [False, True])
def test_by_graph_frozen_layers_stay_in_float_and_thawed_ones_do_not(thawed):
    model = masterkey.create_model("mobilenetv2_035", bank="scale-space-8", num_classes=2).eval()
    frozen = sum(type(module).__name__ == "FrozenConv2d" for module in model.modules())
    if thawed:
        masterkey.thaw(model)
    images = torch.randn(2, 3, 32, 32)
    prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (images,))
    prepared(images)
    found = Counter(type(module).__name__ for module in convert_fx(prepared).modules())
    assert frozen > 10 and found["FrozenConv2d"] == (0 if thawed else frozen)
    assert sum(count for name, count in found.items() if name.startswith("Conv")) >= frozen
