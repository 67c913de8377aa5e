"""Clusterability: planted clusters are found, noise has none."""

import pytest
import torch
from report_runs import RANDOM, SCRATCH, experiment, finish

from masterkey.analysis.clusterability import MOST, clusterability
from masterkey.analysis.plots.clusterability import clusterability_scatter
from masterkey.analysis.plots.style import png_bytes
from masterkey.benchmarks.scripts.clusterability import correlations, with_recorded
from masterkey.benchmarks.store import ResultStore
from masterkey.errors import MasterkeyError


def planted(noise: float, n: int = 400, seed: int = 0) -> torch.Tensor:
    """Eight shapes of either sign and any size, with noise of a share of their norm."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.nn.functional.normalize(torch.randn(8, 49, generator=generator), dim=1)
    of = torch.arange(n) % 8
    size = torch.randn(n, 1, generator=generator)
    parts = shapes[of] + noise * torch.randn(n, 49, generator=generator) / 7
    return (size * parts + torch.randn(n, 1, generator=generator)).view(n, 7, 7)


def test_clusters_that_are_there_are_found():
    found = clusterability(planted(0.1))
    assert found.filters == 400
    assert found.assigned == 1 and found.control_assigned < 0.1
    assert found.explained > 0.97 and found.silhouette > 0.9 and found.control_silhouette < 0.3
    assert found.gain == found.explained - found.control_explained > 0.7


def test_less_noise_is_more_clusterable_and_noise_is_not():
    gains = [clusterability(planted(noise)).gain for noise in (0.1, 0.5, 1.0)]
    assert gains == sorted(gains, reverse=True)
    white = clusterability(torch.randn(400, 7, 7, generator=torch.Generator().manual_seed(1)))
    assert abs(white.gain) < 0.02 and abs(white.silhouette - white.control_silhouette) < 0.02


def test_many_are_sampled_and_the_same_call_gives_the_same():
    many = planted(0.3, n=MOST + 500)
    assert clusterability(many) == clusterability(many)
    assert clusterability(many).filters == MOST


def test_refusals():
    with pytest.raises(MasterkeyError, match="n, kh, kw"):
        clusterability(torch.randn(9, 1, 3, 3))
    with pytest.raises(MasterkeyError, match="number of centres is a whole number from 2"):
        clusterability(planted(0.1), centres=1)
    with pytest.raises(MasterkeyError, match="number of draws is a whole number from 1"):
        clusterability(planted(0.1), draws=0)
    with pytest.raises(MasterkeyError, match=r"\|cosine\|, from 0 to 1, not nan"):
        clusterability(planted(0.1), threshold=float("nan"))
    with pytest.raises(MasterkeyError, match="8 clusters"):
        clusterability(torch.ones(20, 3, 3))


def test_picture():
    points = {"one": [(0.1, 50.0), (0.2, 60.0)], "another set": [(0.15, 12.0)]}
    assert png_bytes(clusterability_scatter(points)).startswith(b"\x89PNG")


def test_settings_that_are_mixed_are_said():
    """Gain falls with accuracy inside a setting and rises over settings: neither may be told as the other."""

    def networks(pixels, arguments, top1):
        place = {"group": "a network", "pixels": pixels, "arguments": arguments}
        return [{**place, "network": f"{pixels} {arguments} {i}", "top1": top1 + i, "gain": top1 - i} for i in range(4)]

    rows = [*networks("64 px", "a", 10), *networks("128 px", "a", 20), *networks("64 px", "b", 50)]
    found = correlations([*rows, {"group": "alone", "network": "x", "top1": 1.0, "gain": 1.0}])
    assert {key: one["networks"] for key, one in found.items()} == {
        "a network, 64 px, a": 4,
        "a network, 128 px, a": 4,
        "a network, 64 px, b": 4,
        "a network, a, sizes mixed": 8,
        "a network, 64 px, arguments mixed": 8,
        "a network, sizes and arguments mixed": 12,
    }
    assert found["a network, 64 px, a"]["spearman"] == -1.0 and found["a network, a, sizes mixed"]["spearman"] > 0


def test_what_was_recorded_of_networks_that_are_gone_stays(tmp_path):
    store = ResultStore(tmp_path)
    what = experiment([SCRATCH, RANDOM])
    finish(what, store, lambda run: 10.0 + run.config.seed)
    first, second, *_ = store.run_ids()
    recorded = [{"group": "as it was", "network": name, "gain": 0.1} for name in (first, second, "net after 2")]
    now = [{"group": "a network", "network": second, "gain": 0.3}]
    rows = {each["network"]: each for each in with_recorded(now, recorded, store)}
    assert len(rows) == 3 and rows[second]["gain"] == 0.3 and rows["net after 2"]["group"] == "as it was"
    assert rows[first] == {
        "group": "convnext_atto, pets, test, 4 epochs",
        "network": first,
        "gain": 0.1,
        "pixels": "64 px",
        "arguments": "as timm has it",
    }
