"""Degenerate filters of large layers: near copies among few pairs, findings on disk, pages that are capped."""

import numpy as np
import pytest
import torch
from analysis_page import Page
from samples import make_bank

from masterkey.analysis import alike, findings
from masterkey.analysis.alike import COPY, first_alike
from masterkey.analysis.findings import Finding, FindingLog, degenerate_filters
from masterkey.analysis.page import Column, LazyRows, Section, Table, csv_bytes, csv_parts, page_bytes
from masterkey.analysis.quality import assess
from masterkey.analysis.stream import BankFilters
from masterkey.atomic import write_all_atomically
from masterkey.errors import SaveError
from masterkey.extract import from_state_dict


def unit_rows(n, k, seed, clusters=0):
    """White noise, or noisy copies of some filters, of either sign."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, k, generator=generator, dtype=torch.float64)
    if clusters:
        which = torch.randint(clusters, (n,), generator=generator)
        signs = torch.randn(n, 1, generator=generator).sign().double()
        rows = torch.randn(clusters, k, generator=generator, dtype=torch.float64)[which] * signs + 0.1 * rows
    return torch.nn.functional.normalize(rows, dim=1)


def by_brute_force(unit):
    return ((unit @ unit.T).abs() >= COPY).to(torch.uint8).argmax(dim=1)


@pytest.mark.parametrize("k", [2, 9, 49])
@pytest.mark.parametrize("clusters", [0, 1, 12])
def test_first_alike_is_the_first_of_all(k, clusters, monkeypatch):
    monkeypatch.setattr(alike, "_LEAF", 16)  # many parts
    monkeypatch.setattr(alike, "_TOGETHER", 100)
    unit = unit_rows(700, k, k + clusters, clusters)
    assert torch.equal(first_alike(unit), by_brute_force(unit))


def test_first_alike_at_its_edges():
    unit = unit_rows(600, 9, 0)
    unit[3] = unit[590] = 0.0
    unit[599] = -unit[17]
    first = first_alike(unit)
    assert first[3] == 3 and first[590] == 590 and first[599] == 17
    assert torch.equal(first_alike(unit[:1]), torch.zeros(1, dtype=torch.int64))
    assert torch.equal(first_alike(torch.zeros(4, 9).double()), torch.arange(4))
    assert torch.equal(first_alike(torch.ones(5, 1).double()), torch.arange(5))
    assert torch.equal(first_alike(torch.full((900, 9), 1 / 3).double()), torch.zeros(900, dtype=torch.int64))


def test_few_pairs_are_compared(monkeypatch):
    """In 20,000 random filters less than a tenth of all pairs."""
    compared = []
    compare = alike._compare

    def counted(at, targets, asked, first):
        compared.append(len(targets) * len(asked))
        compare(at, targets, asked, first)

    monkeypatch.setattr(alike, "_compare", counted)
    first_alike(unit_rows(20_000, 9, 1))
    assert sum(compared) < 0.1 * 20_000**2


def random_bank(filters=400):
    generator = torch.Generator().manual_seed(0)
    # strong along one axis and weaker along the others, so that the layer does not count as random
    first = torch.randn(20, 1, 3, 3, generator=generator) * torch.linspace(2, 0.2, 9).view(3, 3)
    layers = {"a.weight": first.repeat(2, 1, 1, 1), "b.weight": torch.randn(filters, 1, 3, 3, generator=generator)}
    return from_state_dict(layers, name="net")


def test_the_log_gives_back_what_was_found(monkeypatch):
    monkeypatch.setattr(findings, "_TOGETHER", 7)
    bank = random_bank()
    filters = BankFilters(bank, "net")
    log = FindingLog()
    log.search(filters, assess(bank))
    found = list(log)
    assert found == list(degenerate_filters(filters, assess(bank))) == list(log)
    assert len(log) == len(found) == 420
    assert log.counts == {("net", "low diversity"): 20, ("net", "random"): 400}
    assert found[0] == Finding("net", "a.weight", 20, "low diversity", 0)
    assert found[-1] == Finding("net", "b.weight", 399, "random")
    places = [("net", "b.weight"), ("net", "a.weight"), ("net", "a.weight")]
    assert log.verdicts(places, np.array([5, 19, 39])) == ["random", None, "low diversity"]


def test_larger_layers_are_not_searched_for_copies(monkeypatch):
    bank = random_bank()
    monkeypatch.setattr(findings, "SEARCHED", 9 * 39)
    found = list(degenerate_filters(BankFilters(bank), assess(bank)))
    assert {each.kind for each in found} == {"random"} and len(found) == 400


def test_a_full_disk_is_named(monkeypatch):
    class Full:
        def seek(self, *where):
            raise OSError(28, "No space left on device")

    log = FindingLog()
    log._file = Full()
    bank = make_bank()
    with pytest.raises(SaveError, match=r"no room for temporary files in .*No space left"):
        log.search(BankFilters(bank), assess(bank))


# -- long tables ------------------------------------------------------------------------------------------------


def long_table(count, **options):
    rows = LazyRows(count, lambda: ({"x": number, "y": number / 7} for number in range(count)))
    return Table("long", "Long", (Column("x", "x", "count"), Column("y", "y")), rows, **options)


def test_the_page_has_the_first_thousand_rows_and_says_so():
    text = page_bytes("t", [], [Section("s", "S", [], [long_table(5_000)])]).decode()
    assert "The first 1,000 of 5,000 rows; all of them are in long.csv." in text
    rows = [row for row in Page(text).tables["long"] if row]
    assert len(rows) == 1_000 and rows[-1] == ["999", repr(999 / 7)]
    assert "The first" not in page_bytes("t", [], [Section("s", "S", [], [long_table(1_000)])]).decode()


def test_a_file_has_all_rows_and_is_written_in_parts(tmp_path):
    table = long_table(10_000)
    parts = list(csv_parts(table))
    assert len(parts) == 3 and b"".join(parts) == csv_bytes(table)
    write_all_atomically({tmp_path / "long.csv": csv_parts(table)})
    lines = (tmp_path / "long.csv").read_text().splitlines()
    assert lines[0] == "x,y" and len(lines) == 10_001 and lines[-1].startswith("9999,")


def test_a_file_whose_rows_fail_is_not_written(tmp_path):
    def parts():
        yield b"x\n"
        raise SaveError("gone")

    with pytest.raises(SaveError, match="gone"):
        write_all_atomically({tmp_path / "new" / "a": b"a", tmp_path / "new" / "b": parts()})
    assert not (tmp_path / "new").exists()


def test_a_table_that_is_not_on_the_page_is_named_there():
    text = page_bytes("t", [], [Section("s", "S", [], [long_table(1_234, on_page=False, note="All.")])]).decode()
    assert "All. 1,234 rows, in long.csv only." in text and "<table>" not in text
