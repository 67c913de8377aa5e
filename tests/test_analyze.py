"""``masterkey analyze``: its output, its files, and a page that agrees with them and needs nothing else."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from analysis_page import Page, rows_of
from samples import make_bank

from masterkey import Bank
from masterkey.analysis.page import Column, Picture, Section, Table, csv_bytes, page_bytes
from masterkey.cli.main import run

FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
)


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """Two banks of two families, each with 3x3 and 7x7 filters."""
    folder = tmp_path_factory.mktemp("banks")
    for seed, name in enumerate(("one", "two")):
        make_bank(name, seed=seed).save_pretrained(folder / name)
    (folder / "collection.csv").write_text("bank,family\none,first\ntwo,second\n")
    return folder


@pytest.fixture(scope="module")
def written(banks, tmp_path_factory):
    pytest.importorskip("matplotlib", reason="needs masterkey[analysis]")
    folder = tmp_path_factory.mktemp("out") / "report"
    assert run(["analyze", str(banks), "-o", str(folder)]) == 0
    return folder


def test_the_table_on_the_terminal(banks, capsys):
    assert run(["analyze", str(banks / "one")]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["layer", "kernel", "filters", "S", "H", "H", "about", "0", "T_H", "verdict"]
    assert len(lines) == 5 and lines[1].split()[:3] == ["stages.0.a.weight", "3x3", "6"]
    assert all(line.endswith("not assessable") for line in lines[1:])
    assert "one: passed, no layer has enough filters to be assessed" in err


def test_json(banks, capsys):
    assert run(["analyze", str(banks), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["banks"]) == ["one", "two"] and found["broken"] == {}
    layer = found["banks"]["two"]["layers"][0]
    assert layer["layer"] == "stages.0.a.weight" and layer["kernel"] == [3, 3] and layer["verdict"] == "not assessable"


def test_page_and_csv_hold_the_same_numbers(written):
    page = Page((written / "report.html").read_text())
    files = {path.stem: path for path in written.glob("*.csv")}
    assert set(files) == {*page.tables, "families-filters"}
    assert set(files) >= {"quality", "banks", "findings", "drift-3x3", "drift-7x7", "explained-3x3", "family-layers"}
    assert set(files) >= {"family-shares", "family-groups", "keys-found", "key-match", "key-curve", "key-pruning"}
    for name in page.tables:
        assert [row for row in page.tables[name] if row] == rows_of(files[name])[1:], name
    numbers = [float(row[3]) for row in rows_of(files["drift-7x7"])[1:]]
    assert numbers and all(number > 0 for number in numbers)


def test_page_holds_every_picture_and_fetches_nothing(written):
    page = Page((written / "report.html").read_text())
    assert page.fetched == []
    assert len(page.pictures) == len(list(written.glob("*.png"))) >= 12
    assert all(picture["alt"] and picture["src"].startswith("data:image/png;base64,") for picture in page.pictures)
    names = {path.stem for path in written.glob("*.png")}
    assert {"atlas-one", "atlas-two", "quality", "basis-7x7", "drift-bank-3x3", "ridges-3x3", "scatter-7x7"} <= names
    assert {"families-3x3", "families-layers-7x7", "keys-7x7", "key-curve-3x3"} <= names
    assert len(page.ids) == len(set(page.ids))


def test_the_same_banks_give_the_same_bytes(banks, written, tmp_path):
    assert run(["analyze", str(banks), "-o", str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in written.iterdir()
    }


def test_a_broken_file_is_named_and_the_rest_is_written(banks, tmp_path, capsys):
    place = tmp_path / "banks"
    shutil.copytree(banks, place)
    file = place / "two" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 4
    file.write_bytes(data)
    assert run(["analyze", str(place), "-o", str(tmp_path / "report")]) == 1
    out, err = capsys.readouterr()
    assert "stages.2.a.weight" in out
    assert str(file) in err and "damaged" in err and "all else is done" in err
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Could not be read" in page and "atlas-one" in {path.stem for path in (tmp_path / "report").glob("*.png")}
    assert [row[0] for row in rows_of(tmp_path / "report" / "banks.csv")[1:]] == ["one"]


def test_nothing_but_broken_files(tmp_path, capsys):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    assert run(["analyze", str(tmp_path), "-o", str(tmp_path / "report")]) == 1
    assert "x.safetensors" in capsys.readouterr().err


def test_a_missing_extra_is_named_in_one_sentence(banks, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run(["analyze", str(banks), "-o", str(tmp_path / "report")]) == 1
    assert "pip install 'masterkey[analysis]'" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
    assert run(["analyze", str(banks)]) == 0


def test_resize_brings_all_filters_together(banks, tmp_path):
    assert run(["analyze", str(banks), "--resize", "5", "--no-families", "-o", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("drift-?x?.csv")} == {"drift-5x5"}
    kernels = {row[2] for row in rows_of(tmp_path / "quality.csv")[1:]}
    assert kernels == {"3x3", "7x7"}
    assert {row[0] for row in rows_of(tmp_path / "keys-found.csv")[1:]} == {"5x5"}
    assert not list(tmp_path.glob("famil*"))


def test_wrong_usage_and_unknown_names(tmp_path, capsys):
    assert run(["analyze", "scale-space-8", "--resize", "1"]) == 2 and "have no shape" in capsys.readouterr().err
    assert run(["analyze"]) == 2
    assert run(["analyze", "scale-space-8", "--resize", "0"]) == 2
    assert "--resize" in capsys.readouterr().err
    assert run(["analyze", "scale-space-9"]) == 1
    assert "scale-space-8" in capsys.readouterr().err
    assert run(["analyze", "scale-space-8", "--resize", "33", "-o", str(tmp_path / "out")]) == 1
    assert "32x32 is the largest" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--by", "bank"], "--by"),
        (["--no-families"], "--families"),
        (["--keys", "8"], "--keys"),
        (["--resize", "5"], "--resize"),
        (["--how", "crop", "-o", "out"], "--how"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["analyze", "scale-space-8", *options]) == 2
    assert f"Invalid value for {named}: " in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_one_bank_is_compared_by_depth(banks, tmp_path):
    assert run(["analyze", str(banks / "one"), "--no-families", "--keys", "0", "-o", str(tmp_path)]) == 0
    assert not list(tmp_path.glob("key*"))
    groupings = {row[0] for row in rows_of(tmp_path / "drift-7x7.csv")[1:]}
    assert groupings == {"layer"}  # here the deciles are the layers
    assert (tmp_path / "drift-layer-7x7.png").exists()


def test_a_computed_bank_and_a_single_filter(tmp_path):
    assert run(["analyze", "scale-space-8", "-o", str(tmp_path / "computed")]) == 0
    one = make_bank("single").select(layers=1).sampled(1)
    one.save_pretrained(tmp_path / "single")
    assert run(["analyze", str(tmp_path / "single"), "-o", str(tmp_path / "out")]) == 0
    assert rows_of(tmp_path / "out" / "quality.csv")[1][-1] == "not assessable"


def test_filters_that_do_not_vary_and_keys_beyond_32(tmp_path):
    same = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(0)).expand(40, 3, 3).contiguous()
    drawn = torch.randn(60, 3, 3, generator=torch.Generator().manual_seed(1))
    for name, filters in {"same": same, "drawn": drawn}.items():
        Bank.from_filters(filters, name=name).save_pretrained(tmp_path / name)
    assert run(["analyze", str(tmp_path / "same"), "-o", str(tmp_path / "one")]) == 0
    page = (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    assert "the scaled filters do not vary" in page and "10 of 9" not in page
    assert run(["analyze", str(tmp_path / "drawn"), "-o", str(tmp_path / "two"), "--keys", "40", "--no-families"]) == 0


# -- the page's own pieces ---------------------------------------------------------------------------------------


def test_texts_cannot_break_the_page():
    table = Table("t", "a <b>", (Column("x", 'x"y', "text"), Column("y", "y")), [{"x": "<script>", "y": 1 / 3}])
    text = page_bytes("<title>", ["&"], [Section("s", "</section>", ["<i>"], [table])]).decode()
    assert "<script>" not in text and "&lt;script&gt;" in text
    page = Page(text)
    assert page.tables["t"][1] == ["<script>", repr(1 / 3)]
    assert csv_bytes(table) == f"x,y\n<script>,{1 / 3!r}\n".encode()


def test_sections_of_others_stand_before_the_atlas(banks, tmp_path):
    pytest.importorskip("matplotlib", reason="needs masterkey[analysis]")
    from masterkey.analysis.collection import open_collection
    from masterkey.analysis.page.content import plain
    from masterkey.analysis.report import write_analysis

    png = make_png()
    rows = [{"family": "Gaussian", "share": 0.25}]
    table = Table("families", "Families", (Column("family", "family", "text"), Column("share", "share", "share")), rows)
    section = Section("families-section", "Families", [], [table, Picture("keys", "Keys", png)])
    write_analysis(open_collection([banks / "one"]), tmp_path, more=[section])
    page = Page((tmp_path / "report.html").read_text())
    assert page.ids.index("families-section") + 2 == page.ids.index("atlas")
    assert page.tables["families"][1] == ["Gaussian", plain(0.25)]
    assert (tmp_path / "keys.png").read_bytes() == png and (tmp_path / "families.csv").exists()


def make_png():
    from masterkey.atlas import draw_atlas, encode_png

    return encode_png(draw_atlas({"x": torch.ones(1, 1, 3, 3)}, "x"))


# -- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Open a page in a headless Chromium at a width; return what it printed and what the console said."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here; apt-get install chromium")

    def call(page, width=1100):
        own = [f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--disable-sync", "--enable-logging=stderr"]
        own += [f"--window-size={width},900", "--v=0", "--dump-dom", page.as_uri()]
        done = subprocess.run([program, *FLAGS.split(), *own], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return call


def test_chromium_has_nothing_to_complain_about(browse, written, tmp_path):
    source = (written / "report.html").read_text()
    document, console = browse(written / "report.html")
    assert console == []
    assert document.count("<img") == source.count("<img") and "</section>" in document
    # and it would have said so: the policy blocks what comes from elsewhere
    broken = tmp_path / "broken.html"
    broken.write_text(source.replace("<main>", '<main><img src="https://example.org/x.png">'))
    assert any("Content Security Policy" in line for line in browse(broken)[1])


def test_nothing_is_wider_than_a_phone(browse, written, tmp_path):
    """The page itself does not scroll sideways; tables and pictures scroll inside their own frames."""
    probe = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
    source = (written / "report.html").read_text()
    probed = tmp_path / "probed.html"
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', source)[0]
    probed.write_text(source.replace(policy, "").replace("</body>", probe))
    document, _ = browse(probed, width=500)
    wide, room = map(int, re.search(r"<title>(\d+) of (\d+)</title>", document).groups())
    assert wide <= room <= 500
