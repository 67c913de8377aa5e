"""What a layer's name tells of its stage."""

import pytest
import timm
import torch

from masterkey import inject
from masterkey.depthwise import require_layers
from masterkey.errors import NothingMeantError
from masterkey.mask import stage_of


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("stages.2.blocks.0.conv_dw.weight", 2),
        ("stages_1.blocks.0.conv_dw", 1),
        ("levels.3.blocks.1.dw", 3),
        ("blocks.4.0.conv_dw", 4),
        ("layers.0.blocks.1.modulation.focal_layers.2.0", 0),
        ("dense_stages.6.2.dense_block2.layers.layers.0", 6),
        ("dense_stages_6.2.dense_block2.layers.layers.0", 6),
        ("patch_embed.backbone.stages.0.conv", 0),
        ("blocks.7.conv", None),
        ("blocks.2.0.fn.0.weight", None),
        ("crpe2.conv_list.1", None),
    ],
)
def test_a_stage_is_what_the_names_call_one(name, stage):
    assert stage_of(name) == stage


def test_rdnet_has_seven_stages_and_convmixer_has_none():
    with torch.device("meta"):
        rdnet, convmixer = timm.create_model("rdnet_tiny"), timm.create_model("convmixer_768_32")
    stages = [layer.stage for layer in require_layers(rdnet).layers]
    assert sorted(set(stages)) == list(range(7)) and stages == sorted(stages)
    assert {layer.stage for layer in require_layers(convmixer).layers} == {None}


def test_a_stage_of_a_network_without_stages_is_refused():
    model = timm.create_model("convmixer_768_32", num_classes=2)
    with pytest.raises(NothingMeantError, match="matches none of the 32 layers"):
        inject(model, "scale-space-8", layers="stage:2")
