"""The smallest model of each of timm's 51 model classes that have spatial depthwise convolutions."""

import csv
import math
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from masterkey import inject, verify
from masterkey.benchmarks.scripts.coverage import Supply, depthwise, kernel_of, tensors
from masterkey.closed_form.scale_space import scale_space_filters

# Found by building all 1,371 models of timm 1.0.31 on the meta device, keeping the 551 with a Conv2d of
# groups == in_channels > 1 and a kernel above 1x1, and of each class the one with the fewest parameters.
# The side is the smallest of 32, 48, 64, ... up to its own that takes a forward pass in training mode.
SMALLEST = {
    "ByobNet": ("mobilevit_xxs", 32),
    "CPUBone": ("cpubone_nano", 32),
    "CSATv2": ("csatv2", 64),
    "CoaT": ("coat_tiny", 224),
    "ConvMixer": ("convmixer_768_32", 32),
    "ConvNeXt": ("test_convnext", 32),
    "CspNet": ("cs3sedarknet_xdw", 32),
    "CspNext": ("cspnext_tiny", 32),
    "DaVit": ("davit_tiny", 32),
    "EdgeNeXt": ("edgenext_xx_small", 32),
    "EfficientFormerV2": ("efficientformerv2_s0", 224),
    "EfficientNet": ("test_efficientnet", 32),
    "EfficientViM": ("efficientvim_m1", 32),
    "EfficientViMDistilled": ("efficientvim_m1_dist", 32),
    "EfficientVit": ("efficientvit_b0", 32),
    "EfficientVitLarge": ("efficientvit_l1", 32),
    "EfficientVitMsra": ("efficientvit_m0", 32),
    "FastVit": ("fastvit_t8", 32),
    "FocalNet": ("focalnet_tiny_srf", 32),
    "GhostNet": ("ghostnet_050", 32),
    "GlobalContextVit": ("gcvit_xxtiny", 224),
    "HighPerfGpuNet": ("hgnetv2_b0", 32),
    "IFormer": ("iformer_t", 32),
    "LCNetV2": ("lcnetv2_small", 32),
    "LowFormer": ("lowformer_b0", 32),
    "MambaOut": ("test_mambaout", 32),
    "MaxxVit": ("test_coatnet", 160),
    "MetaFormer": ("caformer_s18", 32),
    "MetaNeXt": ("inception_next_atto", 32),
    "MobileNetV3": ("mobilenetv3_small_050", 32),
    "MobileNetV5": ("mobilenetv5_base", 32),
    "MobileNetV5Encoder": ("mobilenetv5_300m_enc", 32),
    "MultiScaleVit": ("mvitv2_tiny", 32),
    "NASNetALarge": ("nasnetalarge", 32),
    "PNASNet5Large": ("pnasnet5large", 32),
    "PoolingVisionTransformer": ("pit_ti_224", 224),
    "PyramidVisionTransformerV2": ("pvt_v2_b0", 32),
    "RDNet": ("rdnet_tiny", 32),
    "RepGhostNet": ("repghostnet_050", 32),
    "RepVit": ("repvit_m1", 32),
    "RexNet": ("rexnet_100", 32),
    "SHViT": ("shvit_s1", 32),
    "StarNet": ("starnet_s050", 32),
    "SwiftFormer": ("swiftformer_xs", 32),
    "TinyVit": ("tiny_vit_5m_224", 32),
    "Twins": ("twins_svt_small", 32),
    "VisionTransformer": ("vitamin_small_224", 224),
    "VovNet": ("ese_vovnet19b_slim_dw", 32),
    "Xception": ("legacy_xception", 32),
    "XceptionAligned": ("xception41p", 32),
    "Xcit": ("xcit_nano_12_p8_224", 32),
}
RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "coverage.csv"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # the layers are small, and with a worker per core more threads only wait for each other
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", SMALLEST)
def test_a_bank_goes_into_every_layer_and_the_network_trains(family):
    name, side = SMALLEST[family]
    torch.manual_seed(0)
    model = timm.create_model(name)
    assert type(model).__name__ == family
    layers = depthwise(model)
    report = inject(model, "scale-space-8")
    assert {row.layer for row in report.replaced} == set(layers)
    assert report.order == "forward"

    targets = [(row.layer, kernel_of(layers[row.layer]), layers[row.layer].out_channels) for row in report.rows]
    supply = Supply({kernel: scale_space_filters(kernel) for kernel in {kernel_of(x) for x in layers.values()}})
    planned = dict(supply.deal(targets))
    assert all(torch.equal(layers[layer].weight, filters) for layer, filters in planned.items())

    # two pictures: batch norm needs more than one number a channel
    outputs = list(tensors(model.train()(torch.randn(2, 3, side, side))))
    loss = sum(output.square().mean() for output in outputs)
    loss.backward()
    assert math.isfinite(loss.item())
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(grads) > len(list(model.parameters())) / 2
    assert all(grad.isfinite().all() for grad in grads)
    stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == 1)
    assert stem.weight.grad.count_nonzero() > 0  # so gradients pass through all that lies behind

    torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1).step()
    assert all(torch.equal(layers[layer].weight, filters) for layer, filters in planned.items())
    assert verify(model) == []


def test_the_list_is_that_of_the_recorded_run():
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    smallest = {}
    for row in sorted(rows, key=lambda row: int(row["parameters"])):
        smallest.setdefault(row["family"], row["model"])  # of equals the first in timm's order
    assert smallest == {family: name for family, (name, _) in SMALLEST.items()}


def test_timm_still_has_these_models_and_classes():
    modules = vars(timm.models).values()
    classes = set(dir(timm.models)) | {thing for module in modules for thing in dir(module)}
    assert set(SMALLEST) <= classes
    assert {name for name, _ in SMALLEST.values()} <= set(timm.list_models())
