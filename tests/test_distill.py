"""Distillation: pruning finds what was planted, keys are found again, every number of the assignment holds."""

import json
from functools import partial

import pytest
import torch

import masterkey
from masterkey.cli.main import run
from masterkey.distill import METHODS, Distilled, autoencoder, distill, explained, greedy, lloyd, prepare, prune
from masterkey.distill.curve import curve_csv, plot_curve
from masterkey.distill.pruning import REASONS, near_duplicates
from masterkey.distill.randomness import is_random, spatial_order
from masterkey.errors import BankFormatError, MasterkeyError
from masterkey.extract import from_state_dict
from masterkey.shapes import filter_table, shapes_of


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_planes(n: int, k: int, seed: int) -> torch.Tensor:
    """Products of random parabolas: smooth, different from each other, (n, k, k)."""
    at = torch.linspace(-1, 1, k)
    powers = torch.stack((torch.ones(k), at, at**2))
    rows, columns = (torch.randn(n, 3, generator=draw(seed + i)) @ powers for i in range(2))
    return rows[:, :, None] * columns[:, None, :]


def planted(keys: int = 4, n: int = 400, noise: float = 0.2, k: int = 7, seed: int = 0):
    """A bank of a * key + b + noise, the keys' shapes, and which filter has which key and a."""
    shapes = shapes_of(smooth_planes(keys, k, seed)).unit
    which = torch.randint(keys, (n,), generator=draw(seed + 2))
    a, b = torch.randn(2, n, 1, generator=draw(seed + 3))
    a = a + a.sign() * 0.5
    filters = a * shapes[which] + b + noise * a * torch.randn(n, k * k, generator=draw(seed + 4)) / k
    layers = filters.view(n, 1, k, k).split(n // 2)
    state = {f"stages.{i}.dw.weight": layer for i, layer in enumerate(layers)}
    return from_state_dict(state, name="planted", licence="MIT", datasets=("pets",)), shapes, which


BANK, SHAPES, WHICH = planted()


@pytest.mark.parametrize("method", METHODS)
def test_planted_keys_are_found_again(method):
    result = distill(BANK, 4, method, seed=3, duplicates=1)
    keys = result.bank.layers["keys.weight"].flatten(1)
    assert keys.mean(1).abs().max() < 1e-6
    assert torch.allclose(keys.norm(dim=1), torch.ones(4), atol=1e-5)
    cosines = (keys @ SHAPES.T).abs()
    assert sorted(cosines.argmax(1).tolist()) == [0, 1, 2, 3]
    assert cosines.amax(1).min() > {"greedy": 0.95, "kmeans": 0.99, "medoids": 0.98}[method]
    assert torch.equal(cosines.argmax(1)[result.assignment.key], WHICH)
    assert result.explained > 0.9
    if method == "greedy":  # the autoencoder's loss curve is kept
        assert result.step["losses"][-1] < 0.3 * result.step["losses"][0]


def test_no_generator_of_a_device_is_seeded(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    here = torch.get_rng_state()
    autoencoder.train(shapes_of(smooth_planes(8, 5, 0)).unit, seed=1, steps=2)
    assert seeded == [] and torch.equal(torch.get_rng_state(), here)


def test_assignment_holds_for_every_filter():
    result = distill(BANK, 4, "kmeans")
    filters = torch.cat([layer[:, 0] for layer in BANK.layers.values()])
    rebuilt = result.assignment.reconstruct(result.bank.layers["keys.weight"])
    left = (filters - rebuilt).flatten(1).square().sum(1)
    total = (filters - filters.mean((1, 2), keepdim=True)).flatten(1).square().sum(1)
    assert torch.allclose(left / total, result.assignment.error, atol=1e-4)
    # nothing nearer: a and b from an independent least-squares solution for every key
    keys = result.bank.layers["keys.weight"].flatten(1).double()
    for row in (0, 57, 399):
        sums = []
        for key in keys:
            columns = torch.stack((key, torch.ones_like(key)), 1)
            answer = torch.linalg.lstsq(columns, filters[row].flatten().double()[:, None])
            sums.append(((columns @ answer.solution)[:, 0] - filters[row].flatten()).square().sum())
            if len(sums) - 1 == result.assignment.key[row]:
                assert answer.solution[:, 0].tolist() == pytest.approx(
                    [float(result.assignment.a[row]), float(result.assignment.b[row])], abs=1e-5
                )
        assert int(torch.stack(sums).argmin()) == result.assignment.key[row]
    kept = result.assignment.verdict == 0
    assert result.explained == pytest.approx(1 - float(result.assignment.error[kept].mean()), abs=1e-5)
    assert sum(result.assignment.counts(4)) == int(kept.sum())


def test_saved_with_its_assignment_and_back(tmp_path):
    result = distill(BANK, 4, "medoids", seed=1)
    folder = result.save_pretrained(tmp_path / "keys")
    back = Distilled.from_pretrained(folder)
    for field in ("layer", "index", "key", "a", "b", "error", "verdict"):
        assert torch.equal(getattr(back.assignment, field), getattr(result.assignment, field)), field
    assert back.assignment.names == tuple(BANK.layers)
    alone = masterkey.Bank.from_pretrained(folder)
    assert alone.sha256 == result.bank.sha256
    assert (alone.metadata.licence, alone.metadata.datasets) == ("MIT", ("pets",))
    step = alone.metadata.transformations[-1]
    assert (step["op"], step["method"], step["keys"], step["seed"]) == ("distilled", "medoids", 4, 1)
    assert step["source_sha256"] == BANK.sha256
    assert step["pruned"] == result.pruned
    assert (
        distill(BANK, 4, "medoids", seed=1)
        .save_pretrained(tmp_path / "again")
        .joinpath("model.safetensors")
        .read_bytes()
        == (folder / "model.safetensors").read_bytes()
    )


def test_an_assignment_that_is_not_the_banks_is_refused(tmp_path):
    folder = distill(BANK, 4, "kmeans").save_pretrained(tmp_path / "keys")
    table = folder / "assignment.csv"
    table.write_bytes(table.read_bytes().replace(b",0,", b",1,", 1))
    with pytest.raises(BankFormatError, match=r"assignment.csv is damaged or of another bank"):
        Distilled.from_pretrained(folder)
    table.unlink()
    with pytest.raises(BankFormatError, match="the keys alone can still be used"):
        Distilled.from_pretrained(folder)
    BANK.save_pretrained(tmp_path / "whole")
    with pytest.raises(BankFormatError, match="was not distilled"):
        Distilled.from_pretrained(tmp_path / "whole")


def test_medoids_are_filters_of_the_bank():
    keys = distill(BANK, 6, "medoids").bank.layers["keys.weight"].flatten(1)
    unit = shapes_of(torch.cat(list(BANK.layers.values()))).unit
    assert (keys @ unit.T).abs().amax(1).min() > 1 - 1e-5


def test_pruning_finds_what_was_planted():
    """Each kind at a known place; generator and rules share no code."""
    good = smooth_planes(60, 7, 10)
    good = good / good.flatten(1).norm(dim=1)[:, None, None]
    dead = 0.01 * good[:5].flip(0)
    constant = torch.full((4, 7, 7), 0.2)
    noise = torch.randn(200, 7, 7, generator=draw(12)) / 7
    twins = torch.cat((2 * good[:3] + 0.1, -good[3:6]))
    twins = twins + 0.002 * torch.randn(6, 7, 7, generator=draw(13))
    one = torch.cat((good, dead, constant, noise, twins))[:, None]
    truth = torch.tensor([0] * 60 + [1] * 5 + [2] * 4 + [3] * 200 + [4] * 6)
    table = filter_table({"a": one, "b": 100 * good[6:12, None].flip(3)}, "bank")
    verdict = prune(table, shapes_of(table.filters)).verdict
    found = verdict[: len(truth)]
    for reason in (1, 2):
        assert torch.equal(found == reason, truth == reason), REASONS[reason]
    assert (found[truth == 3] == 3).double().mean() > 0.85  # the two tests of order are at two deviations each
    assert (found[truth == 0] == 0).double().mean() > 0.95
    assert (found[truth == 4] == 4).all()
    unsigned = prune(table, shapes_of(table.filters), sign=False).verdict[: len(truth)]
    assert (unsigned[truth == 4] == 4).tolist() == [True] * 3 + [False] * 3
    kept = prune(table, shapes_of(table.filters), dead=0, duplicates=1, random=None)
    assert kept.counts()["kept"] == len(table.filters) - 4


def test_deltas_and_edges_are_not_random_and_small_kernels_get_no_verdict():
    deltas = torch.zeros(49, 49)
    deltas.fill_diagonal_(1.0)
    edges = torch.zeros(6, 7, 7)
    for i in range(6):
        edges[i, :, i], edges[i, :, i + 1] = 1.0, -1.0
    checks = (-1.0) ** (torch.arange(7)[:, None] + torch.arange(7))
    assert not is_random(torch.cat((deltas.view(49, 7, 7), edges, checks[None]))).any()
    assert not is_random(torch.randn(50, 3, 3, generator=draw(0))).any()


def test_spatial_order_is_standard_normal_for_any_histogram():
    peaked = torch.randn(4000, 6, 9, generator=draw(5)) ** 3
    order = spatial_order(peaked)
    assert abs(float(order.mean())) < 0.06
    assert abs(float(order.std()) - 1) < 0.05


def test_near_duplicates_over_blocks_are_those_of_a_plain_loop():
    base = torch.nn.functional.normalize(torch.randn(700, 9, generator=draw(6)), dim=1)
    unit = base[torch.randint(700, (5000,), generator=draw(7))]
    unit = torch.nn.functional.normalize(unit + 0.02 * torch.randn(unit.shape, generator=draw(8)), dim=1)
    found = near_duplicates(unit, 0.97)
    leaders: list[int] = []
    for row in range(0, 5000):
        if not leaders or float((unit[leaders] @ unit[row]).abs().max()) <= 0.97:
            leaders.append(row)
    assert (~found).nonzero()[:, 0].tolist() == leaders


def test_kmeans_never_gets_worse_with_more_keys_and_beats_medoids():
    prepared = prepare(BANK, "kmeans", duplicates=1)
    curve = prepared.curve(range(1, 9))
    with pytest.raises(MasterkeyError, match="the number of keys"):
        prepared.curve([0, 1])
    shares = [share for _, share in curve]
    assert shares == sorted(shares)
    assert [keys for keys, _ in curve] == list(range(1, 9))
    assert explained(prepared.unit, lloyd.medoids(prepared.unit, 0)(4)) <= shares[3] + 1e-6
    # one key: the first principal direction, by numpy
    share = torch.linalg.svdvals(prepared.unit.double())[0] ** 2 / len(prepared.unit)
    assert shares[0] == pytest.approx(float(share), abs=1e-5)


def test_removal_order_takes_the_cheapest_first():
    shares = torch.rand(50, 6, generator=draw(9))
    left = set(range(6))
    for goes in greedy.removal_order(shares)[:-1]:
        totals = {i: float(shares[:, sorted(left - {i})].amax(1).sum()) for i in left}
        assert totals[goes] == pytest.approx(max(totals.values()))
        left.remove(goes)


def test_the_autoencoder_learns_and_is_reproducible():
    unit = shapes_of(torch.cat(list(BANK.layers.values()))).unit
    line = autoencoder.train(unit, 0, steps=300)
    assert len(line.losses) == 6
    assert line.losses[-1] < 0.6 * line.losses[0]
    codes = line.encode(unit)
    assert float(codes.min()) >= 0
    assert float(codes.max()) <= 1
    left = (line.reconstruct(codes) - unit).square().sum(1).mean()
    assert float(left) == pytest.approx(line.losses[-1], rel=0.3)
    decoded = line.decode(torch.linspace(0, 1, 5))
    assert torch.allclose(decoded.norm(dim=1), torch.ones(5), atol=1e-5)
    state = torch.random.get_rng_state()
    assert autoencoder.train(unit, 0, steps=300).losses == line.losses
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bad_input_is_refused_in_a_sentence():
    mixed = from_state_dict({"a.weight": torch.randn(4, 1, 3, 3), "b.weight": torch.randn(4, 1, 5, 5)}, name="mixed")
    with pytest.raises(MasterkeyError, match=r"3x3, 5x5, .* select\(kernel=7\)"):
        distill(mixed)
    flat = from_state_dict({"a.weight": torch.ones(4, 1, 7, 7)}, name="flat")
    with pytest.raises(MasterkeyError, match="nothing is left to distil; of its 4: 4 constant"):
        distill(flat)
    for wrong in ({"dead": float("nan")}, {"dead": -1}, {"duplicates": float("inf")}, {"duplicates": float("nan")}):
        with pytest.raises(MasterkeyError, match=f"{next(iter(wrong))} is a "):
            prepare(from_state_dict({"a.weight": torch.randn(40, 1, 3, 3)}, name="noise"), **wrong)
    with pytest.raises(MasterkeyError, match="unknown method 'best'; known: greedy, kmeans, medoids"):
        distill(BANK, method="best")
    with pytest.raises(MasterkeyError, match="there can be 1 to 4"):
        distill(mixed.select(kernel=3), 5, "kmeans", duplicates=1)


def test_a_rule_that_is_no_plain_function_is_remembered_by_name():
    class Nothing:
        def __call__(self, filters):
            return torch.zeros(len(filters), dtype=torch.bool)

    for rule, name in ((partial(is_random), "partial of is_random"), (Nothing(), "Nothing"), (is_random, "is_random")):
        assert distill(BANK, 2, "kmeans", random=rule).step["random"] == name


def test_one_filter_is_its_own_key():
    one = BANK.sampled(1, seed=0)
    for method in ("kmeans", "medoids"):
        assert distill(one, 1, method).assignment.error.max() < 1e-6


def test_dense_filters_are_distilled_slice_by_slice():
    dense = from_state_dict({"conv.weight": torch.randn(6, 4, 5, 5, generator=draw(1))}, kind="dense", name="dense")
    result = distill(dense, 3, "kmeans", random=None)
    assert result.bank.kind == "depthwise"
    assert result.assignment.index.tolist() == list(range(24))


def test_real_filters(data_dir):
    bank = masterkey.Bank.from_checkpoint(data_dir / "checkpoints/mcunet-320kb-1mb_imagenet.pth").select(kernel=7)
    result = distill(bank, 8, "kmeans")
    control = distill(bank.pixel_shuffled(1), 8, "kmeans", random=None)
    assert sum(result.pruned.values()) == len(result.assignment) == 1544
    assert result.pruned["dead"] == len(bank) - len(bank.pruned(0.1))
    assert result.explained > 0.55 > 0.3 > control.explained


def test_the_curve_as_data_and_as_a_picture(tmp_path):
    curve = [(1, 0.25), (2, 0.5)]
    assert curve_csv({"planted": curve}) == b"keys,explained,error\n1,0.250000,0.750000\n2,0.500000,0.500000\n"
    assert curve_csv({"a": curve[:1], "b": curve[1:]}) == (
        b"filters,keys,explained,error\na,1,0.250000,0.750000\nb,2,0.500000,0.500000\n"
    )
    axes = plot_curve({"planted": curve}).axes[0]
    assert axes.lines[0].get_ydata().tolist() == [0.75, 0.5]
    assert "error" in axes.get_ylabel()


def test_the_command(tmp_path, capsys):
    bank, keys, picture = tmp_path / "bank", tmp_path / "keys", tmp_path / "curve.png"
    BANK.save_pretrained(bank)
    arguments = ["distill", str(bank), "-o", str(keys), "--keys", "4", "--method", "kmeans", "--json"]
    assert run([*arguments, "--kernel", "7", "--seed", "2", "--curve", str(picture)]) == 0
    facts = json.loads(capsys.readouterr().out)
    result = Distilled.from_pretrained(keys)
    assert facts["sha256"] == result.bank.sha256
    assert facts["explained"] == result.explained == pytest.approx(dict(facts["curve"])[4], abs=1e-5)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(picture.with_suffix(".csv").read_text().splitlines()) == 33
    assert run(["distill", str(bank), "-o", str(keys), "--kernel", "5"]) == 1
    assert "leaves none of the 2 layers" in capsys.readouterr().err
    assert run(["distill", str(bank), "-o", str(keys), "--method", "best"]) == 2


def test_too_few_filters_are_told_with_what_was_left_out():
    filters = torch.cat([smooth_planes(6, 7, 0), torch.zeros(2, 7, 7), torch.ones(1, 7, 7)])
    bank = masterkey.Bank.from_filters(filters, name="few")
    with pytest.raises(MasterkeyError, match=r"with 6 filters left \(without 2 dead, 1 constant\) and method kmeans"):
        distill(bank, keys=7, method="kmeans")
