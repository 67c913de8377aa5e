import pytest
import torch

from masterkey import Bank
from masterkey.denoise import denoise
from masterkey.errors import PlanError


def planted(filters: int, directions: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(filters)
    shapes = torch.randn(directions, 49, generator=generator)
    clean = (torch.randn(filters, directions, generator=generator) @ shapes).view(filters, 1, 7, 7)
    return clean, clean + noise * torch.randn(clean.shape, generator=generator)


@pytest.mark.parametrize("filters", [40, 49, 160, 320])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_what_was_planted_in_noise_comes_out(filters: int, scale: float):
    clean, noisy = planted(filters, directions=5, noise=1.0)
    found, directions = denoise(noisy * scale)
    assert directions == 5
    assert found.dtype == torch.float32 and found.shape == noisy.shape
    before, after = (noisy - clean).norm(), (found / scale - clean).norm()
    # five directions of the short side keep their noise, 5/49 of it (5/40), and shrinking costs a little
    assert after < 0.52 * before


@pytest.mark.parametrize("filters", [40, 49, 300, 3000])
def test_noise_alone_leaves_next_to_nothing(filters: int):
    noise = torch.randn(filters, 1, 7, 7, generator=torch.Generator().manual_seed(1))
    found, directions = denoise(noise)
    assert directions <= 1  # the largest value of pure noise is at the edge, now and then just above it
    assert found.norm() < 0.1 * noise.norm()


def test_filters_without_noise_stay_as_they_are():
    clean, _ = planted(160, directions=5, noise=0.0)
    found, directions = denoise(clean)
    assert directions >= 5  # what float32 rounds away is noise too
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-4)
    assert denoise(torch.zeros(10, 1, 7, 7))[1] == 0


def test_a_bank_remembers_it_and_drops_layers_of_noise():
    trained = Bank.from_pretrained("convnext-atto.tiny-imagenet")
    clean = trained.denoised()
    step = clean.metadata.transformations[-1]
    assert step["op"] == "denoised"
    assert len(step["directions"]) == len(clean.layers) == 12
    name = next(iter(trained.layers))
    torch.testing.assert_close(clean.layers[name], denoise(trained.layers[name])[0], rtol=0, atol=0)

    layers = dict(trained.layers)
    layers[name] = torch.randn(layers[name].shape, generator=torch.Generator().manual_seed(0))
    assert list(Bank(layers, trained.metadata).denoised().layers) == list(layers)[1:]
    with pytest.raises(PlanError, match="noise in every layer"):
        Bank(layers, trained.metadata).select(layers=1).denoised()
