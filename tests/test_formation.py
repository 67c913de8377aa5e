"""Formation and reproducibility on planted networks, and the trainings that are watched."""

import numpy as np
import pytest
import torch
from picture_folders import image_folder

from masterkey.analysis.formation import (
    HalfFilters,
    formation,
    formation_by_kernel,
    reproducibility,
    reproducibility_by_kernel,
)
from masterkey.analysis.plots.formation import formation_curves, reproducibility_boxes
from masterkey.analysis.plots.formation_ridges import formation_ridges
from masterkey.analysis.plots.style import png_bytes
from masterkey.analysis.sources import as_filters
from masterkey.analysis.structure import measure, survey_all
from masterkey.benchmarks.config import BenchmarkError, DataConfig, TrainConfig
from masterkey.benchmarks.scripts import formation_runs
from masterkey.benchmarks.scripts.small_networks import KINDS, NETWORKS, build_small
from masterkey.errors import MasterkeyError
from masterkey.extract import from_model, from_state_dict

LAYERS = 3


def network(learnt: float, seed: int, which: int = 0, filters: int = 400):
    """A bank of filters that are white noise before training, and mixtures of two shapes a layer after it."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.Generator().manual_seed(100 + which)
    layers = {}
    for layer in range(LAYERS):
        noise = torch.randn(filters, 9, generator=generator)
        basis = torch.randn(2, 9, generator=shapes)
        trained = torch.randn(filters, 2, generator=generator) @ basis
        layers[f"layers.{layer}.weight"] = ((1 - learnt) * noise + learnt * trained).view(-1, 1, 3, 3)
    return from_state_dict(layers, name=f"{which} {seed}")


def test_formation_goes_from_random_to_the_last_checkpoint():
    of = formation({str(epoch): network(learnt, 0) for epoch, learnt in enumerate((0, 0.3, 0.6, 0.9))})
    assert of.labels == ("0", "1", "2", "3") and [info.name for info in of.layers] == list(network(0, 0).layers)
    assert of.entropy.shape == of.sparsity.shape == of.to_last.shape == (4, LAYERS)
    assert (of.entropy[0] > of.threshold).all() and (of.entropy[-1] < of.threshold).all()
    assert (np.diff(of.entropy, axis=0) < 0).all()
    assert (np.diff(of.to_last, axis=0) < 0).all() and (of.to_last[-1] == 0).all()
    assert (np.diff(of.whole_to_last) < 0).all() and of.whole_to_last[-1] == 0
    # as the paper sees: what is spread evenly at first ends in the major components
    assert of.deviations.shape == (4, 9) and np.ptp(of.deviations[0]) < np.ptp(of.deviations[-1])


def test_deviations_are_those_of_the_coefficients():
    bank = network(0.5, 3)
    of = formation({"a": bank, "b": network(0.9, 3)})
    weights = torch.cat([tensor.flatten(1) for tensor in bank.layers.values()]).double()
    scaled = weights / weights.abs().amax(1, keepdim=True)
    # the sum of variances does not depend on the basis; bins are a seventieth of a range
    assert (of.deviations[0] ** 2).sum() == pytest.approx(float(scaled.var(0, unbiased=False).sum()), rel=0.02)


def mixed(learnt: float, seed: int, sizes: tuple[int, ...] = (3, 5)):
    """A bank of layers of several kernels, and one of 1x1, which has no shape."""
    generator = torch.Generator().manual_seed(seed)
    layers = {"first.weight": torch.randn(30, 1, 1, 1, generator=generator)}
    for size in sizes:
        slope = learnt * torch.randn(300, 1, 1, 1, generator=generator) * torch.linspace(-3, 3, size)
        layers |= {f"{size}.{n}.weight": torch.randn(300, 1, size, size, generator=generator) + slope for n in range(2)}
    return from_state_dict(layers, kind="all", name="mixed")


def test_each_kernel_forms_by_itself():
    checkpoints = {"0": mixed(0, 0), "1": mixed(1, 1)}
    found = formation_by_kernel(checkpoints)
    assert list(found) == [(3, 3), (5, 5)]
    for kernel, of in found.items():
        alone = formation({label: bank.select(kernel=kernel) for label, bank in checkpoints.items()})
        assert [info.name for info in of.layers] == [f"{kernel[0]}.{n}.weight" for n in range(2)]
        for name in ("sparsity", "entropy", "threshold", "to_last", "whole_to_last", "deviations", "explained"):
            np.testing.assert_allclose(getattr(of, name), getattr(alone, name), rtol=1e-9, err_msg=name)
        np.testing.assert_array_equal(of.ridges.counts, alone.ridges.counts)
    with pytest.raises(MasterkeyError, match="not of one network"):
        formation_by_kernel({"0": mixed(0, 0), "1": mixed(0, 1, (3, 7))})
    with pytest.raises(MasterkeyError, match="1x1, which have no shape"):
        formation_by_kernel({"0": mixed(0, 0, ()), "1": mixed(0, 1, ())})


def test_each_kernel_is_reproduced_by_itself():
    runs = {"both": [mixed(1, 0), mixed(1, 1)], "one": [mixed(1, 2, (3,)), mixed(1, 3, (3,))]}
    found = reproducibility_by_kernel(runs)
    assert {kernel: list(of.seeds) for kernel, of in found.items()} == {(3, 3): ["both", "one"], (5, 5): ["both"]}
    alone = reproducibility({model: [bank.select(kernel=3) for bank in several] for model, several in runs.items()})
    assert found[3, 3].models == pytest.approx(alone.models)
    np.testing.assert_allclose(found[3, 3].same_layer["both"], alone.same_layer["both"])
    assert found[5, 5].models == [] and found[5, 5].same_layer["both"].shape == (1, 2)
    with pytest.raises(MasterkeyError, match="the runs of both do not have the same layers"):
        reproducibility_by_kernel({"both": [mixed(1, 0), mixed(1, 1, (3,))]})


def test_layers_of_other_names_or_numbers_of_filters_are_not_of_one_network():
    """Layers are compared by their place, so they have to be the same ones."""
    renamed = from_state_dict({f"{name}.weight": torch.randn(40, 1, 3, 3) for name in "abc"}, name="renamed")
    banks = [network(0.5, 0, filters=40), network(0.5, 1, filters=20), renamed]
    for other in banks[1:]:
        with pytest.raises(MasterkeyError, match="not of one network"):
            formation({"0": banks[0], "1": other})
        with pytest.raises(MasterkeyError, match="not of one network"):
            reproducibility({"net": [banks[0], other]})


def test_the_halves_of_a_file_are_read_by_several_threads(tmp_path):
    bank = network(0.5, 0, filters=40_000)
    bank.save_pretrained(tmp_path / "bank")
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for _ in range(3):  # a digest that two threads share is right by luck alone
            found = reproducibility({"net": [str(tmp_path / "bank")]})
    finally:
        torch.set_num_threads(threads)
    assert found.halves == reproducibility({"net": [bank]}).halves


def test_ridges_are_the_histograms_of_the_coefficients():
    checkpoints = {"a": network(0.0, 3), "b": network(0.9, 3)}
    ridges = formation(checkpoints).ridges
    structure = measure(survey_all([as_filters(bank, label) for label, bank in checkpoints.items()]), (3, 3))
    for number, bank in enumerate(checkpoints.values()):
        coefficients = structure.coefficients(torch.cat(list(bank.layers.values())))
        for component in range(9):
            expected, _ = np.histogram(coefficients[:, component], 70, (ridges.low[component], ridges.high[component]))
            assert np.abs(np.cumsum(expected - ridges.counts[number, component])).max() <= 3  # rounding at the edges
    assert (ridges.counts.sum(axis=2) == LAYERS * 400).all()
    area = (ridges.density * ridges.width[:, None]).sum(axis=2)
    np.testing.assert_allclose(area, 1)
    assert (np.diff(ridges.centres, axis=1) > 0).all()


def test_formation_refuses_what_cannot_be_compared():
    bank = network(0, 0)
    with pytest.raises(MasterkeyError, match="two checkpoints"):
        formation({"0": bank})
    with pytest.raises(MasterkeyError, match="not of one network"):
        formation({"0": bank, "1": bank.select(layers=2)})
    mixed = from_state_dict({"a.weight": torch.randn(8, 1, 3, 3), "b.weight": torch.randn(8, 1, 5, 5)}, name="mixed")
    with pytest.raises(MasterkeyError, match="formation_by_kernel and reproducibility_by_kernel take each kernel"):
        formation({"0": mixed, "1": mixed})


def test_seeds_that_form_the_same_filters_differ_by_chance_alone():
    of = reproducibility({f"model {which}": [network(0.9, seed, which) for seed in range(3)] for which in range(2)})
    for model in of.seeds:
        assert len(of.halves[model]) == len(of.seeds[model]) == 3
        assert max(of.seeds[model]) < 1.5 * max(of.halves[model])
        assert of.same_layer[model].shape == (3, LAYERS) and of.other_layer[model].shape == (9,)
        assert np.median(of.same_layer[model]) < 0.2 * np.median(of.other_layer[model])
        assert max(of.seeds[model]) < min(of.models)
    assert len(of.models) == 9


def test_halves_are_all_filters_once():
    bank = from_state_dict({"a.weight": torch.arange(5 * 9.0).view(5, 1, 3, 3)}, name="five")
    halves = [HalfFilters(as_filters(bank), str(odd), odd) for odd in (False, True)]
    read = [torch.cat(list(half.read(0))) for half in halves]
    assert [half.layers[0].filters for half in halves] == [len(each) for each in read] == [3, 2]
    assert torch.equal(torch.cat(read).sort(0).values, bank.layers["a.weight"].flatten(1))
    with pytest.raises(MasterkeyError, match="there is no run to compare"):
        reproducibility({})
    with pytest.raises(MasterkeyError, match="there is no run of b to compare"):
        reproducibility_by_kernel({"a": [torch.randn(4, 3, 3)], "b": []})
    with pytest.raises(MasterkeyError, match="single filter"):
        HalfFilters(as_filters(torch.randn(1, 3, 3)), "one", True)


def test_pictures_are_drawn():
    drawn = formation_curves(formation({str(epoch): network(learnt, 0) for epoch, learnt in enumerate((0, 0.5, 0.9))}))
    assert png_bytes(drawn).startswith(b"\x89PNG")
    ridges = formation_ridges(formation({str(epoch): network(learnt, 0) for epoch, learnt in enumerate((0, 0.9))}))
    assert png_bytes(ridges).startswith(b"\x89PNG")
    assert len([axes for axes in ridges.axes if axes.lines]) == 9 and len(ridges.axes[0].lines) == 2
    several = reproducibility({str(which): [network(0.9, seed, which) for seed in range(2)] for which in range(2)})
    assert png_bytes(reproducibility_boxes(several)).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NETWORKS)
def test_small_networks_see_32_pixels(name):
    model = build_small(name, 10, 0).eval()
    bank = from_model(model, KINDS[name])
    assert set(bank.counts()) == {(3, 3)} and len(bank.layers) == {"resnet9": 8, "mobilenetv2": 17}[name]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    again = build_small(name, 10, 0).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())
    with pytest.raises(BenchmarkError, match="no small network"):
        build_small("resnet10", 10, 0)


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("moment", ["before the snapshot", "after it", "before run.json"])
def test_a_run_broken_off_gives_what_it_gives_unbroken(tmp_path, monkeypatch, moment):
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))
    pictures = image_folder(tmp_path / "pictures", {"train": {"a": 8, "b": 8}, "test": {"a": 2, "b": 2}}, width=32)
    data = DataConfig(str(pictures), pixels=32)
    recipe = TrainConfig(epochs=4, batch_size=8, warmup_epochs=1, val_interval=2)
    whole = formation_runs.do_run("resnet9", 0, tmp_path / "whole", data, recipe)

    real_keep, real_train, real_write = formation_runs._keep, formation_runs.train, formation_runs.record

    def keep(model, folder, epochs):
        if epochs == 2 and moment == "before the snapshot":
            raise _KilledError
        real_keep(model, folder, epochs)
        if epochs == 2 and moment == "after it":
            raise _KilledError

    def write(path, data):
        if path.name == "run.json":
            raise _KilledError
        real_write(path, data)

    monkeypatch.setattr(formation_runs, "_keep", keep)
    monkeypatch.setattr(formation_runs, "train", lambda *a, **k: real_train(*a, **{**k, "checkpoint_every": 0.0}))
    if moment == "before run.json":
        monkeypatch.setattr(formation_runs, "record", write)
    with pytest.raises(_KilledError):
        formation_runs.do_run("resnet9", 0, tmp_path / "broken", data, recipe)
    assert not (tmp_path / "broken" / "run.json").exists()
    monkeypatch.setattr(formation_runs, "_keep", real_keep)
    monkeypatch.setattr(formation_runs, "record", real_write)
    broken = formation_runs.do_run("resnet9", 0, tmp_path / "broken", data, recipe)
    assert {**broken, "seconds": 0} == {**whole, "seconds": 0}
    for epochs in formation_runs.snapshots(recipe):
        one, other = (formation_runs.snapshot_bank("resnet9", tmp_path / f, epochs) for f in ("whole", "broken"))
        assert one.sha256 == other.sha256
    assert formation_runs.do_run("resnet9", 0, tmp_path / "broken", data, recipe) == broken
