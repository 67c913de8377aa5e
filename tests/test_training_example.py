"""The training of docs/training.md runs as it stands, but for its size."""

import re
from pathlib import Path

import pytest
import torch
from picture_folders import image_folder

import masterkey

DOCUMENT = Path(__file__).parent.parent / "docs" / "training.md"


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torchvision")
    loop, _, after = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    full = "PIXELS, EPOCHS, RATE = 128, 40, 2e-3"
    assert full in loop
    image_folder(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(loop.replace(full, "PIXELS, EPOCHS, RATE = 32, 2, 1e-3"), names)
    assert "% of 5 pictures" in capsys.readouterr().out
    model, plain = names["model"], names["plain"]
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    exec(after, names)
    assert masterkey.verify(plain) == [] and not any("conv_dw.weight" in name for name, _ in plain.named_parameters())
    assert any("conv_dw.weight" in name for name, _ in model.named_parameters())
