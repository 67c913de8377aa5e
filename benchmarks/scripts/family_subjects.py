"""The trained networks whose families are replaced and watched, and how each is judged.

MCUNet, a real ImageNet network, on pictures of Tiny-ImageNet, whose 200 classes are ImageNet's; and the two small
networks of ``formation``, trained here on CIFAR-10, one of which has dense filters.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masterkey import depthwise_layers

from ..arms import data_path
from ..augment import center_crop
from ..data import load_data
from .formation_runs import DATA, TRAIN, snapshot_network
from .mbconv import MCUNET, enlarged, fused, load_published, validation_pictures
from .small_networks import KINDS

KEPT = Path("benchmarks/results/kept/formation")
_BATCH = 50


@dataclass(frozen=True)
class Subject:
    """A trained network with the layers in question by name, pictures as it takes them, and labels.

    ``classes`` (k,) are those that the pictures show; ``prepare`` turns uint8 (B, s, s, 3) into input; ``faster`` gives
    the same function.
    """

    name: str
    model: nn.Module
    layers: dict[str, nn.Conv2d]
    images: Tensor
    labels: Tensor
    classes: Tensor
    prepare: Callable[[Tensor], Tensor]
    faster: Callable[[nn.Module], nn.Module]

    def weights(self) -> dict[str, Tensor]:
        """Name -> (out, in per group, kh, kw)."""
        return {name: layer.weight.detach() for name, layer in self.layers.items()}

    def with_weights(self, weights: dict[str, Tensor]) -> nn.Module:
        """A copy of the network with other weights in the layers."""
        model = copy.deepcopy(self.model)
        modules = dict(model.named_modules())
        with torch.no_grad():
            for name, weight in weights.items():
                module = modules[name]
                assert isinstance(module, nn.Conv2d)
                module.weight.copy_(weight)
        return model

    @torch.inference_mode()
    def judge(self, model: nn.Module) -> dict[str, float]:
        """Top-1 in percent among all of the network's classes and among those shown; cross-entropy among the latter."""
        network = self.faster(model)
        logits = torch.cat([network(self.prepare(part)) for part in self.images.split(_BATCH)]).float()
        shown = logits[:, self.classes]
        at = (self.classes[None] == self.labels[:, None]).int().argmax(1)
        return {
            "top1": round(100 * float((logits.argmax(1) == self.labels).double().mean()), 2),
            "top1 among shown": round(100 * float((shown.argmax(1) == at).double().mean()), 2),
            "loss among shown": round(float(F.cross_entropy(shown, at)), 4),
        }


def mcunet(per_class: int) -> Subject:
    """MCUNet and Tiny-ImageNet's validation pictures, so many of each class."""
    model = load_published(MCUNET, data_path("checkpoints"))
    pictures = validation_pictures(per_class)
    return Subject(
        MCUNET.name,
        model,
        dict(depthwise_layers(model)),
        pictures.images,
        pictures.labels,
        pictures.among,
        lambda images: enlarged(images, MCUNET.pixels),
        lambda network: fused(network),  # type: ignore[arg-type]
    )


def trained_here(network: str, seed: int, pictures: int, kept: Path = KEPT) -> Subject:
    """A network of ``formation`` after its last epoch, and so many pictures of CIFAR-10 that it did not learn from.

    Raises:
        FileNotFoundError: it has not been trained here.
    """
    folder = kept / f"{network}-{seed}"
    model = snapshot_network(network, folder, TRAIN.epochs)
    held_out = load_data(DATA).evaluate
    # the pictures are in the order of their classes in no data set at hand, so the first are a fair choice
    images, labels = (torch.from_numpy(part[:pictures].copy()) for part in (held_out.images, held_out.labels))
    layers = dict(depthwise_layers(model)) if KINDS[network] == "depthwise" else _dense(model)
    return Subject(
        folder.name,
        model,
        layers,
        images,
        labels,
        torch.arange(len(labels.unique())),
        lambda part: center_crop(part, DATA.pixels).contiguous(memory_format=torch.channels_last),
        lambda changed: changed.to(memory_format=torch.channels_last),
    )


def subjects(mcunet_per_class: int, cifar_pictures: int) -> list[Subject]:
    """All networks that are at hand; says which are not."""
    found = [mcunet(mcunet_per_class)]
    for network in ("resnet9", "mobilenetv2"):
        try:
            found.append(trained_here(network, 0, cifar_pictures))
        except FileNotFoundError:
            print(f"{network}: not trained here, left out; python -m masterkey.benchmarks.scripts.formation trains it")
    return found


def described(subject: Subject) -> dict[str, Any]:
    """What a result says of its network and pictures."""
    return {"pictures": len(subject.labels), "classes shown": len(subject.classes), "layers": len(subject.layers)}


def _dense(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.kernel_size != (1, 1)
    }
