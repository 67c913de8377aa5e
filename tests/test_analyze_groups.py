"""Which groups ``masterkey analyze`` compares: different kernels, --by, epsilon, and more than can be shown."""

import numpy as np
import pytest
import torch
from analysis_page import rows_of

from masterkey.analysis.chance import chance
from masterkey.analysis.collection import Tags, open_collection
from masterkey.analysis.drift import drift
from masterkey.analysis.findings import FindingLog
from masterkey.analysis.plots.style import as_shown
from masterkey.analysis.quality import qualities
from masterkey.analysis.report_drift import kernel_section
from masterkey.analysis.report_groups import Comparison, alone, drawable, refusal
from masterkey.analysis.report_quality import quality_section
from masterkey.analysis.sources import as_filters
from masterkey.analysis.structure import measure
from masterkey.bank import Bank, join
from masterkey.cli.main import run
from masterkey.extract import from_state_dict

pytest.importorskip("matplotlib", reason="needs masterkey[analysis]")


def save(folder, name, *kernels, layers=1, filters=12):
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    state = {
        f"{k}.{number}.weight": torch.randn(filters, 1, k, k, generator=generator) + number
        for k in kernels
        for number in range(layers)
    }
    from_state_dict(state, name=name).save_pretrained(folder / name)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four banks of 3x3 filters, of two families, and one more of 5x5."""
    folder = tmp_path_factory.mktemp("four")
    for name in "abcd":
        save(folder, name, 3, layers=2)
    collection = open_collection([folder])
    collection.tags |= {name: Tags(name, family="first" if name in "ab" else "second") for name in "abcd"}
    return collection


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made but not drawn, which is what takes long."""
    for name in ("report_drift", "report_quality"):
        monkeypatch.setattr(f"masterkey.analysis.{name}.png_bytes", lambda figure: b"")


def tables(section):
    return {part.name: list(part.rows) for part in section.content if hasattr(part, "rows")}


def pictures(section):
    return {part.name for part in section.content if hasattr(part, "png")}


# -- kernels that no other bank has --------------------------------------------------------------------------------


def test_banks_without_a_common_kernel_are_named_and_all_else_is_written(tmp_path, capsys):
    save(tmp_path / "banks", "threes", 3)
    save(tmp_path / "banks", "fives", 5)
    options = ["analyze", str(tmp_path / "banks"), "--no-families", "--keys", "0", "-o"]
    assert run([*options, str(tmp_path / "out")]) == 1
    said = "fives (5x5), threes (3x3) have none in common with any other bank and are left out of it; --resize 5x5"
    out, err = capsys.readouterr()
    assert said in err and "all else is done" in err and len(out.splitlines()) == 3
    assert said in (tmp_path / "out" / "report.html").read_text()
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"quality.csv", "explained-3x3.csv", "explained-5x5.csv", "atlas-threes.png"} <= written
    assert not [name for name in written if name.startswith("drift")]
    # resized on request
    assert run([*options, str(tmp_path / "resized"), "--resize", "5", "--how", "crop"]) == 0
    assert "left out" not in capsys.readouterr().err
    assert [row[:3] for row in rows_of(tmp_path / "resized" / "drift-5x5.csv")[1:]] == [["bank", "fives", "threes"]]


def test_banks_that_cannot_be_resized_are_named(tmp_path, capsys):
    for name, kernel in (("evens", 4), ("threes", 3), ("more", 3)):
        save(tmp_path / "banks", name, kernel)
    options = ["analyze", str(tmp_path / "banks"), "--no-families", "--keys", "0", "--resize", "3", "--how", "exact"]
    run([*options, "-o", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Could not be read" in page and "evens: " in page and "evens" in capsys.readouterr().err


def test_names_that_matplotlib_would_read_as_mathematics_are_shown(tmp_path):
    for name in ("a$b^$c", "_hidden"):
        save(tmp_path / "banks", name, 3)
    assert run(["analyze", str(tmp_path / "banks"), "--no-families", "--keys", "0", "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").is_file()
    assert as_shown("_hidden").startswith(" ") and as_shown("a$b^$c") == r"a\$b^\$c"


def test_every_atlas_has_a_file_of_its_own(tmp_path):
    long = "/".join(["a" * 90] * 4)
    for name in ("x/y", "x-y", long):
        save(tmp_path / "banks", name, 3)
    assert run(["analyze", str(tmp_path / "banks"), "--no-families", "--keys", "0", "-o", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("atlas-*.png"))) == 3


def test_only_the_bank_that_is_alone_is_left_out(undrawn, tmp_path):
    for name, kernels in (("a", (3,)), ("b", (3, 5)), ("c", (7,))):
        save(tmp_path, name, *kernels)
    collection = open_collection([tmp_path])
    read = collection.survey()
    assert alone(read) == {"c": [(7, 7)]}
    assert "c (7x7) has none in common with any other bank and is left out of it" in refusal(read)
    assert alone(read[:2]) == {} and refusal(read[:2]) == ""
    assert alone(read[2:]) == {}  # a single bank has nothing to be compared with
    section = kernel_section(collection, read, [], (5, 5))
    assert "Only b has such filters, so they are not compared with those of other banks." in section.sentences


# -- groupings -----------------------------------------------------------------------------------------------------


def test_by_chooses_the_groups(undrawn, four):
    read = four.survey()
    usual = kernel_section(four, read, [], (3, 3))
    assert [row["group"] for row in tables(usual)["phenotypes-3x3"]] == ["a", "b", "c", "d"]
    assert [row["grouping"] for row in tables(usual)["drift-3x3"]][:6] == ["bank"] * 6
    by_family = kernel_section(four, read, [], (3, 3), Comparison("family"))
    assert [row["group"] for row in tables(by_family)["phenotypes-3x3"]] == ["first", "second"]
    assert tables(by_family)["drift-3x3"][0]["grouping"] == "family"
    assert "deciles-3x3" in pictures(by_family)  # the families within each decile
    by_task = kernel_section(four, read, [], (3, 3), Comparison("task"))
    assert "All of them belong to one task, unknown." in by_task.sentences
    by_layer = kernel_section(four, read, [], (3, 3), Comparison("layer"))
    assert len(tables(by_layer)["phenotypes-3x3"]) == 8 and "drift-layer-3x3" in pictures(by_layer)


def test_by_groups_quality_over_depth(undrawn, four, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "masterkey.analysis.report_quality.quality_over_depth", lambda groups, title: drawn.append(groups)
    )
    layers = [layer for of in four.survey() for layer in qualities(of.sums)]
    quality_section(four, layers, FindingLog())
    quality_section(four, layers, FindingLog(), "family")
    assert [list(groups) for groups in drawn] == [["a", "b", "c", "d"], ["first", "second"]]
    assert [layer.bank for layer in drawn[1]["second"]] == ["c", "c", "d", "d"]


def test_an_unknown_tag_and_an_impossible_epsilon_are_refused(four, tmp_path, capsys):
    assert run(["analyze", "scale-space-8", "--by", "colour"]) == 2
    assert "bank, model, family, task, dataset, layer, decile" in " ".join(capsys.readouterr().err.split())
    for epsilon in ("0", "1", "-1e-3"):
        assert run(["analyze", "scale-space-8", "-o", str(tmp_path / "out"), f"--epsilon={epsilon}"]) == 1
        assert "between 0 and 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_epsilon_and_renormalise_reach_the_drift(undrawn, four):
    read = four.survey()
    structure = measure(read, (3, 3))
    expected = drift(structure, four.groups(structure.layers, "bank"), epsilon=1e-3, renormalise=False)
    section = kernel_section(four, read, [], (3, 3), Comparison(epsilon=1e-3, renormalise=False))
    found = [row["drift"] for row in tables(section)["drift-3x3"] if row["grouping"] == "bank"]
    np.testing.assert_array_equal(found, expected.total[np.triu_indices(4, 1)])
    usual = tables(kernel_section(four, read, [], (3, 3)))["drift-3x3"]
    assert found[0] != usual[0]["drift"]
    said = "Distributions have at least epsilon = 0.001 in every bin and are not divided by their sum again."
    assert said in section.sentences


def test_every_drift_stands_beside_its_level_of_chance(undrawn, tmp_path):
    """a and b are halves of one draw, c lies elsewhere; each has a degenerate layer, of copies."""
    generator = torch.Generator().manual_seed(0)
    for name, tilt in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        drawn = torch.randn(150, 1, 3, 3, generator=generator)
        drawn[:, 0, 0] = drawn[:, 0, 0] * 4 + tilt * 4
        copies = torch.ones(60, 1, 3, 3) + 1e-3 * torch.randn(60, 1, 3, 3, generator=generator)
        from_state_dict({"0.weight": drawn, "1.weight": copies}, name=name).save_pretrained(tmp_path / name)
    collection = open_collection([tmp_path])
    read = collection.survey()
    section = kernel_section(collection, read, [layer for of in read for layer in qualities(of.sums)], (3, 3))
    rows = {row["first"] + row["second"]: row for row in tables(section)["drift-3x3"] if row["grouping"] == "bank"}
    assert [row["above_chance"] for row in rows.values()] == ["no", "yes", "yes"]
    assert [row["above_chance_without_degenerate"] for row in rows.values()] == ["no", "yes", "yes"]
    groups = collection.groups(measure(read, (3, 3)).layers, "bank")
    expected = chance(drift(measure(read, (3, 3)), groups)).mean
    assert [row["by_chance"] for row in rows.values()] == [expected[0, 1], expected[0, 2], expected[1, 2]]
    assert rows["ab"]["by_chance_without_degenerate"] > rows["ab"]["by_chance"]  # smaller groups
    largest = max(rows.values(), key=lambda row: row["drift"])
    said = (
        "Of 3 pairs 2 drift more than by chance; the largest of these drifts is "
        f"D = {largest['drift']:.3g}, between {largest['first']} and c (by chance {largest['by_chance']:.3g})."
    )
    assert section.sentences[0].endswith(said)
    two = kernel_section(collection, read[:2], [], (3, 3), Comparison("bank"))
    assert "The drift is D = " in two.sentences[0] and two.sentences[0].endswith("): not above chance.")
    for_deciles = kernel_section(collection, read[:2], [], (3, 3), Comparison("decile"))
    assert for_deciles.sentences[0].endswith("): above chance.")


def test_what_is_not_drawn_is_said(undrawn, four, monkeypatch):
    for name in ("report_drift", "report_groups", "report_pairs"):
        monkeypatch.setattr(f"masterkey.analysis.{name}.DRAWN", 3)
    section = kernel_section(four, four.survey(), [], (3, 3))
    said = "No heat map of 4 banks, and no level of chance for every pair: that is for 3 groups at most."
    assert said in section.sentences
    assert {(row["grouping"], row["by_chance"] is None) for row in tables(section)["drift-3x3"]} == {
        ("bank", True),
        ("family", False),
        ("depth decile", False),
    }
    assert "The largest drift is D = " in section.sentences[0] and " (by chance " in section.sentences[0]
    assert any("the first 3 of 4 banks" in said for said in section.sentences)
    assert "drift-bank-3x3" not in pictures(section) and "drift-family-3x3" in pictures(section)
    assert len(tables(section)["phenotypes-3x3"]) == 4
    monkeypatch.setattr("masterkey.analysis.report_drift.PAIRED", 3)
    section = kernel_section(four, four.survey(), [], (3, 3))
    assert "No drift between the pairs of 4 banks: 3 groups are compared at most." in section.sentences
    assert {row["grouping"] for row in tables(section)["drift-3x3"]} == {"family", "depth decile"}


def test_drawable_keeps_the_first():
    groups = {str(number): number for number in range(50)}
    shown, said = drawable(groups, "family", "Densities")
    assert list(shown.values()) == list(range(40))
    assert said == ["Densities: the first 40 of 50 families; another --by may have fewer groups."]
    assert drawable(shown, "family", "Densities") == (shown, [])


def test_depths_of_selected_layers_are_said_to_be_others(undrawn, tmp_path):
    for name in "ab":
        save(tmp_path, name, 3, 5, layers=2)

    def sentences():
        collection = open_collection([tmp_path])
        layers = [layer for of in collection.survey() for layer in qualities(of.sums)]
        return quality_section(collection, layers, FindingLog()).sentences

    assert not any("Depth counts" in said for said in sentences())
    part = Bank.from_pretrained(tmp_path / "a").select(kernel=5)
    part.renamed("part").save_pretrained(tmp_path / "c")
    join([part, part]).save_pretrained(tmp_path / "d")
    assert [said for said in sentences() if "Layers were left out of c, d (select)" in said]
    depths = [info.depth for info in as_filters(part).layers]
    assert depths == [0.25, 0.75] != [info.depth for info in as_filters(tmp_path / "a").layers if info.kernel == (5, 5)]
