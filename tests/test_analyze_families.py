"""Families and keys on the page of ``masterkey analyze``: beside controls, and of a sample where there are many."""

import pytest
import torch
from analysis_page import Page, rows_of
from samples import make_bank

from masterkey.analysis.collection import open_collection
from masterkey.analysis.controls import noise_like, pixels_shuffled
from masterkey.analysis.drawn import draw
from masterkey.analysis.families import LABELS
from masterkey.analysis.kernel_study import study
from masterkey.analysis.known_keys import known_keys
from masterkey.analysis.report import analyse
from masterkey.analysis.report_keys import find_keys
from masterkey.cli.main import run
from masterkey.closed_form.banks import computed_bank
from masterkey.closed_form.scale_space import scale_space_filters
from masterkey.distill import METHODS, distill, explained, match, mean_match
from masterkey.errors import MasterkeyError
from masterkey.extract import from_state_dict
from masterkey.shapes import shapes_of

KEYS = scale_space_filters((5, 5))[:, 0]


def planted(seed=0, noise=0.1):
    """Twelve dead filters and sixty that are scale-space keys with a factor, an offset and a little noise, 5x5."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.arange(60) % 8
    factors = (2 + torch.rand(60, generator=generator)) * torch.randn(60, generator=generator).sign()
    planes = KEYS[numbers] * factors[:, None, None] + noise * torch.randn(60, 5, 5, generator=generator)
    layers = {"a.weight": torch.cat([planes[:20], torch.zeros(12, 5, 5)]), "b.weight": planes[20:]}
    layers |= {"c.weight": torch.randn(5, 2, 2, generator=generator)}
    return from_state_dict({name: layer[:, None] for name, layer in layers.items()}, name="planted")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="needs masterkey[analysis]")
    folder = tmp_path_factory.mktemp("planted")
    bank = planted()
    bank.save_pretrained(folder / "planted")
    known = from_state_dict({"keys.weight": KEYS[:4, None]}, name="four keys")
    known.save_pretrained(folder / "known")
    options = ["--reference", str(folder / "known"), "--keys", "8"]
    assert run(["analyze", str(folder / "planted"), "-o", str(folder / "report"), *options]) == 0
    return folder / "report"


def table(folder, name):
    header, *rows = rows_of(folder / f"{name}.csv")
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_page_and_csv_hold_the_same_numbers(written):
    page = Page((written / "report.html").read_text())
    names = {path.stem for path in written.glob("*.csv")}
    assert names == {*page.tables, "families-filters"}
    assert {"family-line", "family-losses", "family-thresholds"} <= names
    for name in page.tables:
        assert [row for row in page.tables[name] if row] == rows_of(written / f"{name}.csv")[1:], name
    pictures = {path.stem for path in written.glob("*.png")}
    assert {"families-5x5", "families-layers-5x5", "family-line-5x5", "family-samples-5x5", "keys-5x5"} <= pictures
    assert len(page.pictures) == len(pictures) and len(page.ids) == len(set(page.ids))


def test_families_of_what_was_planted(written):
    real, random, shuffled = table(written, "family-shares")
    assert [row["source"] for row in (real, random, shuffled)] == ["real", "random", "shuffled pixels"]
    assert int(real["filters"]) == 60 and float(real["explained"]) == 1 and float(real["derivative_x"]) > 0
    assert float(random["explained"]) < 0.3
    shares = [float(real[label.replace(" ", "_")]) for label in LABELS]
    assert sum(shares) == pytest.approx(1) and 1 - shares[-1] == float(real["explained"])
    layers = table(written, "family-layers")
    assert [(row["layer"], row["filters"]) for row in layers] == [("a.weight", "20"), ("b.weight", "40")]
    both = sum(float(row["gaussian"]) * int(row["filters"]) for row in layers)
    assert both == pytest.approx(60 * float(real["gaussian"]))
    groups = table(written, "family-groups")
    assert {row["grouping"] for row in groups} == {"model", "depth decile"}
    assert sum(int(row["filters"]) for row in groups if row["grouping"] == "depth decile") == 60


def test_shares_of_groups_stand_beside_those_of_controls(written):
    real, random, shuffled = table(written, "family-shares")
    for name in ("family-layers", "family-groups"):
        rows = [row for row in table(written, name) if row.get("grouping") != "model"]
        for source, whole in (("", real), ("_random", random), ("_shuffled_pixels", shuffled)):
            for label in ("explained", "gaussian", "derivative_x", "none"):
                parts = sum(float(row[f"{label}{source}"]) * int(row["filters"]) for row in rows)
                assert parts == pytest.approx(60 * float(whole[label])), (name, label, source)


def test_every_filter_by_itself(written):
    rows = table(written, "families-filters")
    assert len(rows) == 77 and [row["kernel"] for row in rows].count("2x2") == 5
    said = "All 5 filters of 2x2 are taken. All 72 filters of 5x5 are taken. 77 rows, in families-filters.csv only."
    assert said in (written / "report.html").read_text()
    at = {(row["layer"], int(row["index"])): row for row in rows}
    assert len(at) == 77
    dead, copy, first = at["a.weight", 25], at["b.weight", 3], at["a.weight", 4]
    assert (dead["degenerate"], dead["pruned"], dead["family"], dead["scale_space_form"]) == ("sparse", "dead", "", "")
    assert copy["bank"] == "planted" and copy["pruned"] in ("", "duplicate")
    # key 4 of the eight is a central difference along x, whatever its sign
    assert first["family"] == first["nearest"] + " x" == "derivative x"
    assert first["scale_space_form"] == "central-x" and float(first["scale_space_error"]) < 0.1
    assert 1 - float(first["cosine"]) ** 2 == pytest.approx(float(first["residual"]), abs=1e-5)
    assert float(first["width"]) > 0.3 and first["width_x"] == "" and 0 <= int(first["sample"]) < 50
    label = {row["sample"]: row["sample_family"] for row in rows}
    assert all(label[row["sample"]] == row["sample_family"] for row in rows)
    families = [row["family"] for row in rows if row["family"]]
    layers = table(written, "family-layers")
    gaussians = sum(float(row["gaussian"]) * int(row["filters"]) for row in layers)
    assert families.count("gaussian") == round(gaussians) and len(families) == 60
    assert at["c.weight", 0]["nearest"] == ""


def test_what_is_said(written):
    text = (written / "report.html").read_text()
    assert "5x5: All 72 filters of 5x5 are taken. 12 are dead or constant and left out. 100% have a family" in text
    assert "2x2: All 5 filters of 2x2 are taken. None has a family: the models need 3x3 or more." in text
    assert "8 keys explain" in text and "Matched with four keys: mean |cosine|" in text


def test_the_code_line(written):
    losses = [float(row["loss"]) for row in table(written, "family-losses")]
    assert len(losses) == 60 and losses[-1] < 0.2 * losses[0]
    rows = table(written, "family-line")
    assert [float(row["threshold"]) for row in rows] == [step / 20 for step in range(8, 20)]
    at = {round(float(row["threshold"]), 2): row for row in rows}[0.85]
    assert float(at["assigned"]) > 0.5 and float(at["purity"]) > 0.8 and float(at["neither"]) == 0


def test_keys_of_what_was_planted(written):
    curve = {(row["kernel"], row["source"], int(row["keys"])): row for row in table(written, "key-curve")}
    assert (
        float(curve["5x5", "kmeans", 8]["explained"]) > 0.9 > 2 * float(curve["5x5", "kmeans, random", 8]["explained"])
    )
    assert all(float(row["explained"]) + float(row["error"]) == pytest.approx(1) for row in curve.values())
    assert ("5x5", "greedy", 32) in curve and ("2x2", "greedy", 1) not in curve and ("2x2", "kmeans", 1) in curve
    found = [row for row in table(written, "keys-found") if row["kernel"] == "5x5"]
    assert len(found) == 16 and sum(int(row["filters"]) for row in found[8:]) == 60 - duplicates(written)
    assert all(float(row["error"]) < 0.1 for row in found if row["method"] == "kmeans")
    assert all(row["form"] for row in table(written, "keys-found") if row["kernel"] == "2x2")  # even sides by k + 1
    means = {(row["known"], row["source"]): float(row["mean"]) for row in table(written, "key-match")}
    assert means["scale-space-8", "greedy"] > 0.95 and means["scale-space-8", "kmeans"] > 0.85
    assert means["four keys", "greedy"] > 0.95 and means["scale-space-8", "kmeans, shuffled pixels"] < 0.5
    pairs = [row for row in table(written, "key-match-pairs") if row["known"] == "four keys"]
    assert [row["known_key"] for row in pairs] == ["1", "2", "3", "4"] * 2


def test_shares_are_of_the_same_filters_as_those_of_the_controls(tmp_path):
    """Half of the filters are noise, most of which pruning leaves out before keys are sought."""
    noise = torch.randn(60, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    bank = from_state_dict({**planted().select(kernel=5).layers, "noise.weight": noise}, name="half noise")
    bank.save_pretrained(tmp_path)
    found = study(open_collection([tmp_path]).survey(), (5, 5))
    assert found.pruning.counts()["random"] > 40
    keys = find_keys(found, 8, {})
    living = torch.cat([bank.layers["a.weight"][:20, 0], bank.layers["b.weight"][:, 0], noise[:, 0]])
    assert int(found.alive.sum()) == len(living) == 120
    for method in ("greedy", "kmeans"):
        result = found.methods[method].distilled(8)
        share = explained(shapes_of(living).unit, result.bank.layers["keys.weight"].flatten(1))
        assert keys.curves[method][8] == pytest.approx(share, abs=1e-6)
        assert result.explained_living == pytest.approx(share, abs=1e-4) and share < 0.75 < 0.85 < result.explained
    shuffled = shapes_of(pixels_shuffled(living)).unit
    expected = explained(shuffled, METHODS["kmeans"](shuffled, 0)(8))
    assert keys.curves["kmeans, shuffled pixels"][8] == pytest.approx(expected, abs=1e-6)


def duplicates(folder):
    [row] = [row for row in table(folder, "key-pruning") if row["kernel"] == "5x5"]
    assert int(row["filters"]) == 72 and int(row["dead"]) == 12
    return int(row["duplicate"]) + int(row["random"])


def test_without_a_sample_the_keys_are_those_of_distill(tmp_path):
    bank = planted(1).select(kernel=5)
    bank.save_pretrained(tmp_path)
    found = study(open_collection([tmp_path]).survey(), (5, 5)).methods["kmeans"].distilled(8)
    expected = distill(bank, 8, "kmeans")
    assert torch.equal(found.bank.layers["keys.weight"], expected.bank.layers["keys.weight"])
    assert torch.equal(found.assignment.key, expected.assignment.key)


def test_a_sample_is_seeded_even_and_said(tmp_path):
    for name in ("one", "two"):
        make_bank(name, seed=len(name)).select(kernel=3).repeated(20).save_pretrained(tmp_path / name)
    read = open_collection([tmp_path]).survey()
    everything = draw(read, (3, 3))
    total = sum(info.filters for of in read for info in of.filters.layers)
    assert len(everything.bank) == everything.of == total
    assert everything.sentence == f"All {total:,} filters of 3x3 are taken."
    some, again, other = (draw(read, (3, 3), most=100, seed=seed) for seed in (0, 0, 1))
    assert len(some.bank) == 100 and some.bank.sha256 == again.bank.sha256 != other.bank.sha256
    assert some.sentence == f"100 of {total:,} filters of 3x3 are taken, drawn at random (seed 0)."
    assert {info.bank for info in some.layers} == {"one", "two"}
    # each drawn filter is the one of its index in its own layer
    numbers = some.index.split([len(drawn) for drawn in some.bank.layers.values()])
    for drawn, info, index in zip(some.bank.layers.values(), some.layers, numbers, strict=True):
        source = next(of.filters for of in read if of.filters.label == info.bank)
        assert torch.equal(torch.cat(list(source.read(info.position)))[index], drawn.flatten(1))


def test_dense_filters_are_slices(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {"conv.weight": torch.randn(5, 4, 3, 3, generator=generator)}
    bank = from_state_dict(state, kind="dense", name="dense")
    bank.save_pretrained(tmp_path)
    drawn = draw(open_collection([tmp_path]).survey(), (3, 3))
    assert torch.equal(drawn.bank.layers["0"][:, 0], state["conv.weight"].flatten(0, 1))
    _, _, sections = analyse(open_collection([tmp_path]))
    shares = next(part for part in sections[2].content if getattr(part, "name", "") == "family-shares")
    assert sections[2].id == "filter-families" and shares.rows[0]["filters"] == 20


def test_a_bank_of_dead_filters(tmp_path):
    from_state_dict({"a.weight": torch.zeros(9, 1, 3, 3)}, name="dead").save_pretrained(tmp_path)
    _, _, sections = analyse(open_collection([tmp_path]))
    said = {section.id: section.sentences[-1] for section in sections}
    assert said["filter-families"].endswith("None has a family: all of them are dead or constant.")
    assert said["filter-keys"].endswith("0 are kept (9 dead). So there is nothing to find keys of.")


def test_controls_keep_the_norms():
    filters = torch.randn(20, 5, 3, generator=torch.Generator().manual_seed(0))
    for control in (noise_like, pixels_shuffled):
        changed = control(filters, 0)
        torch.testing.assert_close(changed.flatten(1).norm(dim=1), filters.flatten(1).norm(dim=1))
        assert torch.equal(changed, control(filters, 0)) and not torch.equal(changed, control(filters, 1))
    assert torch.equal(pixels_shuffled(filters).flatten(1).sort().values, filters.flatten(1).sort().values)


def test_match_is_one_to_one():
    unit = shapes_of(torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0))).unit
    pairs = match(-unit[[2, 0, 1]], unit)
    assert [key for key, _ in pairs] == [1, 2, 0, None]
    assert [cosine for _, cosine in pairs] == pytest.approx([-1, -1, -1, 0])
    assert mean_match(-unit[[2, 0, 1]], unit) == pytest.approx(0.75)


def test_what_is_no_reference_is_refused(tmp_path, capsys):
    many = from_state_dict({"a.weight": torch.randn(51, 1, 5, 5)}, name="many")
    with pytest.raises(MasterkeyError, match="many has 51 filters of 5x5; a reference for keys has 50 at most"):
        known_keys([(5, 5)], many)
    with pytest.raises(MasterkeyError, match="many has filters of 5x5, so it is no reference for keys of 7x7"):
        known_keys([(7, 7)], many)
    assert set(known_keys([(5, 5), (7, 7)], computed_bank("random-8", None, licence=None))[5, 5]) == {
        "scale-space-8",
        "random-8",
    }
    make_bank("net").save_pretrained(tmp_path / "net")
    assert run(["analyze", str(tmp_path / "net"), "-o", str(tmp_path / "out"), "--reference", "no-such-bank"]) == 1
    assert "no-such-bank" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert run(["analyze", str(tmp_path / "net"), "--keys", "51"]) == 2
    with pytest.raises(MasterkeyError, match="51 keys were asked for"):
        analyse(open_collection([tmp_path / "net"]), keys=51)


@pytest.mark.parametrize("factor", [1e-40, 1e-25, 1.0, 1e19, 2.0**120])
def test_white_noise_has_the_norms_of_filters_of_any_scale(factor):
    filters = torch.randn(20, 3, 3, generator=torch.Generator().manual_seed(0)) * factor
    noise, norms = noise_like(filters), torch.linalg.vector_norm
    assert torch.allclose(norms(noise.double(), dim=(1, 2)), norms(filters.double(), dim=(1, 2)), rtol=1e-4)
    assert not noise_like(torch.zeros(2, 3, 3)).any()
