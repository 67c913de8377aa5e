"""The real ImageNet networks built from their state dicts, and the experiments on families at a small size."""

import json

import pytest
import torch
from torch import nn

from masterkey.analysis.replacement import census
from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.scripts import family_ablation, family_activations
from masterkey.benchmarks.scripts.family_subjects import Subject
from masterkey.benchmarks.scripts.mbconv import (
    MCUNET,
    PUBLISHED,
    build_mbconv,
    fused,
    load_published,
    validation_pictures,
)
from masterkey.depthwise import depthwise_layers
from masterkey.extract import from_checkpoint, from_model

FILTERS = {MCUNET.name: {(3, 3): 1128, (5, 5): 744, (7, 7): 1544}}


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.name)
def test_every_weight_finds_its_place(data_dir, published):
    model = load_published(published, data_dir / "checkpoints")
    built, read = from_model(model), from_checkpoint(data_dir / "checkpoints" / f"{published.name}.pth")
    assert built.sha256 == read.sha256
    assert built.counts() == FILTERS.get(published.name, built.counts())
    pictures = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        logits, faster = model(pictures), fused(model)(pictures)
    assert logits.shape == (2, 1000) and torch.allclose(logits, faster, atol=1e-3)


def test_mcunet_classifies(data_dir, monkeypatch, tmp_path):
    """Chance is 0.1 %; 400 pictures gave 10 %, and the inputs of its norms have the means that they expect."""
    monkeypatch.setenv("MASTERKEY_DATA", str(data_dir))
    from masterkey.benchmarks.scripts.family_subjects import mcunet

    subject = mcunet(1)
    assert len(subject.labels) == len(subject.classes) == 200 and subject.images.shape[1:] == (64, 64, 3)
    assert subject.judge(subject.model)["top1"] > 5
    assert family_ablation.batch_norm_check(subject)["median"] > 0.9


def test_another_state_dict_is_refused():
    with pytest.raises(BenchmarkError, match="MBConv"):
        build_mbconv({"conv.weight": torch.zeros(3, 3, 3, 3)}, MCUNET.stages)


def small_subject() -> Subject:
    """An untrained network whose filters are its own; pictures are noise."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 5, padding=2, groups=12), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    with torch.no_grad():
        at = torch.arange(5) - 2.0
        model[1].weight.copy_(torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / 2).expand(12, 1, 5, 5))
    images = torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8)
    return Subject(
        "small",
        model,
        dict(depthwise_layers(model)),
        images,
        torch.arange(8),
        torch.arange(8),
        lambda part: part.permute(0, 3, 1, 2).float() / 255,
        lambda network: network,
    )


def test_an_ablation_goes_on_where_it_was_broken_off(tmp_path, monkeypatch):
    output = tmp_path / "result.json"
    subject = small_subject()
    of = census(subject.weights())
    conditions = list(family_ablation.conditions(of, False))
    assert not list(family_ablation.conditions(of, True))  # a single kernel size
    assert {condition.group for condition in conditions} == {"gaussian"} and len(conditions) == 25  # 3 ways, 8 seeds
    result = {"networks": {}}
    family_ablation.run_subject(subject, of, False, result, output)
    whole = json.loads(output.read_text())
    figures = whole["networks"]["small"]["figures"]
    assert len(figures) == 26 and figures["gaussian | all kernels | mean | 0"]["loss among shown"] == pytest.approx(
        figures["as trained"]["loss among shown"], abs=1e-3
    )
    for key in list(figures)[5:]:
        del figures[key]
    again = json.loads(json.dumps(whole))
    family_ablation.run_subject(small_subject(), of, False, again, output)
    assert again["networks"]["small"]["figures"] == result["networks"]["small"]["figures"]
    assert whole["networks"]["small"]["overlap"] == {"gaussian | all kernels": 1.0}  # all filters are of the family


def test_a_family_is_compared_with_as_many_at_random_seed_by_seed():
    figures = {"as trained": {"top1": 10.0}}
    for seed, (noise, control) in enumerate([(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)]):
        figures[f"dog | 7x7 | noise | {seed}"] = {"top1": noise}
        figures[f"dog | 7x7 | random filters by noise | {seed}"] = {"top1": control}
    figures["dead | 7x7 | noise | 0"] = {"top1": 10.0}  # has no control
    figures["dog | 7x7 | noise | 3"] = {"top1": 0.0}  # its control is not there yet
    # -1, -2, -3: deviation 1, Student's t of two degrees of freedom 4.303
    assert family_ablation.differences(figures) == {
        "dog | 7x7": {"seeds": 3, "top1": {"mean": -2.0, "low": -4.484, "high": 0.484}}
    }


def test_activations_are_reported_by_family():
    found = family_activations.run_subject(small_subject())
    assert list(found["groups"]) == ["gaussian"] and found["groups"]["gaussian"]["filters"] == 12
    real, control = (found["groups"]["gaussian"][side] for side in family_activations.SIDES)
    assert real.keys() == control.keys() and real["mean"] == pytest.approx(control["mean"], abs=0.5)


def test_classes_of_tiny_imagenet_are_imagenets(data_dir, monkeypatch):
    monkeypatch.setenv("MASTERKEY_DATA", str(data_dir))
    pictures = validation_pictures(1)
    assert len(pictures.among.unique()) == 200 and set(pictures.labels.tolist()) == set(pictures.among.tolist())
