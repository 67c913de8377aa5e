"""What others train with: each runs a real training here if it is installed, and is skipped otherwise."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import masterkey

PICTURES = TensorDataset(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5)


def network() -> torch.nn.Module:
    return masterkey.create_model("test_convnext", bank="scale-space-8", num_classes=5)


def others(model: torch.nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def learnt(model: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    """Whether all that is no frozen filter has moved, and those have not."""
    after = list(model.parameters())
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    return all(moved) and masterkey.verify(model) == []


def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch, _):
            return cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-3)

    def trainer(epochs: int):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", precision="bf16-mixed", default_root_dir=tmp_path, **quiet
        )

    module, first = Module(), trainer(1)
    before = others(module)
    first.fit(module, DataLoader(PICTURES, 4))
    assert learnt(module.net, before)
    first.save_checkpoint(tmp_path / "c.ckpt")
    again = Module()
    trainer(2).fit(again, DataLoader(PICTURES, 4), ckpt_path=tmp_path / "c.ckpt", weights_only=False)
    assert learnt(again.net, others(module))


def test_accelerate(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    model = network()
    before = others(model)
    prepared, optimizer, batches = accelerator.prepare(
        model, torch.optim.AdamW(model.parameters(), 1e-3), DataLoader(PICTURES, 4)
    )
    for pictures, labels in batches:
        accelerator.backward(cross_entropy(prepared(pictures), labels))
        optimizer.step()
        optimizer.zero_grad()
    assert learnt(accelerator.unwrap_model(prepared), before)
    accelerator.save_state(tmp_path)
    trained = others(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    accelerator.load_state(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(trained, model.parameters(), strict=True))
    assert masterkey.verify(model) == []


def test_peft():
    peft = pytest.importorskip("peft")
    model = network()
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=r".*(fc1|fc2)"))
    adapted(PICTURES.tensors[0]).sum().backward()
    assert masterkey.verify(model) == []
    assert masterkey.verify(adapted.merge_and_unload()) == []


def samples() -> list[dict[str, object]]:
    return [{"pixel_values": picture, "labels": int(label)} for picture, label in PICTURES]


def test_transformers_trainer(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")  # its Trainer needs it
    config = transformers.TimmWrapperConfig(architecture="test_convnext", num_labels=5)
    model = transformers.TimmWrapperForImageClassification(config)
    masterkey.inject(model, "scale-space-8")
    before = others(model)
    told = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=1, per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True
    )
    transformers.Trainer(model, told, train_dataset=samples()).train()
    assert learnt(model, before)


@pytest.mark.parametrize("kind", ["ConvNext", "ConvNextV2", "MobileNetV2"])
def test_networks_of_transformers(kind, tmp_path):
    """Their networks hold plain depthwise layers; what is saved has their own keys and loads without us."""
    transformers = pytest.importorskip("transformers")
    sizes = {} if kind == "MobileNetV2" else {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
    config = getattr(transformers, f"{kind}Config")(num_labels=5, **sizes)
    whole = getattr(transformers, f"{kind}ForImageClassification")
    model = whole(config)
    names = list(model.state_dict())
    masterkey.inject(model, "scale-space-8")
    model(pixel_values=PICTURES.tensors[0], labels=PICTURES.tensors[1]).loss.backward()
    assert masterkey.verify(model) == [] and list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    loaded = whole.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
