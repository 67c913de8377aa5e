"""Pictures of three tints, and a network small enough to learn them in a test."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import nn

import masterkey
from masterkey.benchmarks.config import TrainConfig
from masterkey.benchmarks.data import Data, Part

# every option that carries state or draws numbers
RICH = TrainConfig(
    epochs=4,
    batch_size=16,
    lr=3e-3,
    warmup_epochs=1,
    color_jitter=0.3,
    mixup=0.2,
    cutmix=1.0,
    reprob=0.25,
    clip_grad=1.0,
    model_ema=True,
    model_ema_decay=0.9,
    freeze_epoch=2,
)
PLAIN = TrainConfig(epochs=2, batch_size=16, lr=3e-3, warmup_epochs=0)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(count, seed, side=32):
    """Noise of three tints: a class is a colour."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = generator.normal(110, 40, (count, side, side, 3)) + 40 * np.eye(3)[labels][:, None, None]
    return Part(images.clip(0, 255).astype(np.uint8), labels)


def tints():
    return Data("tints", ("red", "green", "blue"), pictures(70, 0), pictures(30, 1), pixels=32, sha256="f" * 64)


def mislabelled():
    """``tints`` with every fifth picture that is evaluated under another label: what learns them makes mistakes."""
    data = tints()
    images, labels = data.evaluate.images, data.evaluate.labels
    return replace(data, evaluate=Part(images, (labels + (np.arange(len(labels)) % 5 == 0)) % 3))


def network(seed=0, **kwargs):
    torch.manual_seed(seed)
    options = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24), "num_classes": 3, "drop_path_rate": 0.1}
    # LayerScale from 1: its usual tiny values would hide what the blocks do
    options |= {"ls_init_value": 1.0, **kwargs}
    return timm.create_model("convnext_atto", **options)


def network_with_bank(freeze=True):
    model = network()
    masterkey.inject(model, "scale-space-8", freeze=freeze)
    return model


def model_without_drop_path():
    model = network(drop_path_rate=0.0)
    masterkey.inject(model, "scale-space-8", freeze=False)
    return model


def measure(model, data=None):
    """Loss, accuracy in percent and mistakes on what ``tints`` evaluates, with none of the harness' code."""
    part = (data or tints()).evaluate
    images = torch.from_numpy(part.images).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(figures)[:, None, None] for figures in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        logits = model.eval()(((images - mean) / std).float())
    labels = torch.from_numpy(part.labels)
    loss = float(nn.functional.cross_entropy(logits, labels))
    answers = logits.argmax(1)
    mistakes = tuple((row, int(answers[row])) for row in range(len(labels)) if answers[row] != labels[row])
    return loss, 100 * float((answers == labels).double().mean()), mistakes


def curve_bytes(outcome):
    return json.dumps([epoch.to_dict() for epoch in outcome.curve]).encode()
