"""The report's files: page, Markdown and CSV agree with the runs' JSON files, byte for byte again, and stand alone."""

import csv
import io
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from statistics import fmean, stdev

import numpy as np
import pytest
import typer
from PIL import Image
from report_runs import BANK, RANDOM, SCRATCH, SELFFER, by_arm, experiment, finish, report
from typer.testing import CliRunner

from masterkey.benchmarks.experiment import experiment_names, load_experiment
from masterkey.benchmarks.report import write_report
from masterkey.benchmarks.store import ResultStore
from masterkey.cli.bench_report import report as report_command
from masterkey.errors import SaveError

FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
)
LINE = re.compile(r"-?\d+(\.\d+)?")


class Page(HTMLParser):
    """What a test wants of a page: figures, cells, and whatever would fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.figures: list[tuple[str, str]] = []
        self.loose: list[str] = []
        self.fetched: list[str] = []
        self.data = ""
        self.ids: set[str] = set()
        self.open: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given["id"]} if "id" in given else set()
        if tag not in ("meta", "link", "br"):
            self.open.append((tag, given))
        links = [given.get(key) for key in ("src", "href", "srcset", "action", "data", "poster", "xlink:href")]
        self.fetched += [link for link in links if link is not None and not link.startswith(("#", "data:,"))]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, "tags that do not match"

    def handle_data(self, text):
        tags = [tag for tag, _ in self.open]
        inner = self.open[-1] if self.open else ("", {})
        if inner[0] == "script":
            self.data += text
        elif inner[0] == "data":
            self.figures.append((inner[1]["value"], text))
        elif inner[0] == "text" and "data-value" in inner[1]:
            self.figures.append((inner[1]["data-value"], text))
        elif "td" in tags and "number" in self.open[tags.index("td")][1].get("class", "") and LINE.search(text):
            self.loose.append(text)


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def every_layout(store):
    """Four small experiments, one of each layout, with names of their own."""
    layers = {"name": "AnB", "bank": "scale-space-8", "vary": {"inject.layers": [1, 3]}}
    source = {"name": "from", "vary": {"bank": ["scratch:pets", "scratch:food"]}}
    arms = {"arms": [BANK, SELFFER], "matrix": [source], "curve": [layers], "bars": [BANK]}
    made = []
    for layout, own in arms.items():
        what = experiment([SCRATCH, RANDOM, *own], layout, targets=["food", "pets"], seeds=[0, 1, 2])
        finish(what, store, lambda run: 30 + 40 * int(run.config.id[:6], 16) / 16**6 + run.config.seed)
        made.append(replace(what, name=f"tiny-{layout}"))
    return made


def figures_of_csv(folder):
    """All values of all CSV files."""
    values = set()
    for path in folder.glob("*.csv"):
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        assert lines[0][:2] == ["experiment", "size"] and lines[0][-2:] == ["measure", "value"]
        values |= {line[-1] for line in lines[1:]} | {cell for line in lines[1:] for cell in line[2:-2]}
    return values


def shown_of(value, text):
    """Whether a text shows a value: rounded as it is, with a true minus sign and thousands set apart."""
    plain = text.replace("\N{MINUS SIGN}", "-").replace(",", "").lstrip("+")
    decimals = len(plain.partition(".")[2]) if "e" not in plain else 9
    return abs(float(plain) - float(value)) <= 0.5 * 10**-decimals + 1e-9


def test_every_figure_of_the_page_is_in_the_csv(store, tmp_path):
    write_report(every_layout(store), store, tmp_path / "report")
    page = Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    values = figures_of_csv(tmp_path / "report")
    assert len(page.figures) > 500
    assert [figure for figure in page.figures if figure[0] not in values] == []
    assert [figure for figure in page.figures if not shown_of(*figure)] == []
    assert {text.strip() for text in page.loose} <= {"of 3"}, "a number that is not in the CSV"


def test_page_agrees_with_the_runs_files(store, tmp_path):
    """Recomputed from the JSON files alone, without the report's code."""
    (what, *_) = every_layout(store)
    page = Page(report(what, store, tmp_path / "report"))
    (data,) = json.loads(page.data)
    by_run = {path.stem: json.loads(path.read_text())["metrics"] for path in (store.root / "runs").glob("*.json")}
    final = {}
    for row in data["tables"]["runs"]:
        assert by_run[row["id"]]["top1"] == pytest.approx(row["top1"], abs=1e-6)
        final.setdefault((row["target"], row["arm"]), {})[row["seed"]] = by_run[row["id"]]
    assert len(data["tables"]["arms"]) == len(final) == 8
    for row in data["tables"]["arms"]:
        top1 = [run["top1"] for run in final[row["target"], row["arm"]].values()]
        assert (row["top1"], row["deviation"]) == (round(fmean(top1), 6), round(stdev(top1), 6))
        assert (str(row["top1"]), f"{fmean(top1):.1f}") in page.figures
    for row in data["tables"]["differences"]:
        ours, theirs = final[row["target"], row["arm"]], final[row["target"], row["control"]]
        difference = fmean(ours[seed]["top1"] - theirs[seed]["top1"] for seed in ours)
        assert row["difference"] == pytest.approx(difference, abs=1e-6)
    for row in data["tables"]["curves"]:
        at_epoch = [run["curve"][row["epoch"] - 1]["top1"] for run in final[row["target"], row["arm"]].values()]
        assert row["top1"] == pytest.approx(fmean(at_epoch), abs=1e-6)


def test_the_same_results_give_the_same_bytes(store, tmp_path):
    made = every_layout(store)
    other = ResultStore(tmp_path / "elsewhere")
    for path in sorted((store.root / "runs").glob("*.json"), reverse=True):  # written in another order
        other.run_path(path.stem).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other.run_path(path.stem))
    first, second = (write_report(made, where, tmp_path / name) for where, name in ((store, "a"), (other, "b")))
    assert [path.name for path in first] == [path.name for path in second]
    assert first[0].name == "report.html" and (tmp_path / "a" / "report.md") in first
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_the_page_stands_alone(store, tmp_path):
    write_report(every_layout(store), store, tmp_path / "report")
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == []
    assert "default-src 'none'" in text and "@import" not in text and "url(" not in text
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links == {f"tiny-{layout}" for layout in ("arms", "matrix", "curve", "bars")} <= page.ids


def test_every_figure_says_how_to_make_it_again(store, tmp_path):
    write_report(every_layout(store), store, tmp_path / "report")
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    figures = re.findall(r'<figure id="tiny-(\w+)-(\w+)">(.*?)</figure>', text, flags=re.DOTALL)
    assert len(figures) >= 20
    for layout, name, content in figures:
        command = f"masterkey bench report tiny-{layout} --size small -o report  # {name}.csv"
        assert command in content and (tmp_path / "report" / f"{name}.csv").exists()


def test_what_files_say_cannot_become_markup(store, tmp_path):
    what = experiment([SCRATCH, RANDOM, {"name": "a|<b>", "bank": "scale-space-8"}])
    finish(what, store, by_arm({"scratch": [10, 11], "random": [9, 10], "a|<b>": [12]}))
    (run,) = [run for run in what.plan(store) if store.read(run.config.id) is None]
    store.write_failure(run.config, RuntimeError("</script><script>alert(1)</script> | *"))
    text = report(what, store, tmp_path / "report")
    assert "<script>alert" not in text and "<b>" not in text.replace("<b>a|&lt;b&gt;</b>", "")
    assert json.loads(Page(text).data)[0]["tables"]["arms"][2]["missing"].endswith("</script> | *")
    lines = (tmp_path / "report" / "report.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("| a\\|\\<b> | scale-space-8")]
    header = next(line for line in lines if line.startswith("| arm |"))
    assert len(re.findall(r"(?<!\\)\|", line)) == header.count("|")


def test_names_cannot_become_links_in_markdown(store, tmp_path):
    what = experiment([SCRATCH, RANDOM, {"name": "[a](http://b)", "bank": "scale-space-8"}])
    finish(what, store, lambda run: 10.0)
    report(what, store, tmp_path / "report")
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| [a]\\(http://b) | scale-space-8, frozen |" in markdown and "[a](" not in markdown


def test_a_screen_reader_finds_its_way(store, tmp_path):
    """Headings skip no level; pictures have a name, or are signs beside a text that has; so have scrolling areas."""
    write_report(every_layout(store), store, tmp_path / "report")
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    levels = [int(level) for level in re.findall(r"<h([1-6])>", text)]
    assert levels[0] == 1 and set(levels) == {1, 2, 3}
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    named = r'(aria-hidden="true"|role="img" aria-label="[^"]+")'
    pictures, areas = re.findall(r"<svg [^>]*>", text), re.findall(r'<div class="scroll"[^>]*>', text)
    assert len(pictures) > 20 and all(re.search(named, picture) for picture in pictures)
    assert len(areas) > 20 and all(re.search(r'role="region" aria-label="[^"]+"', area) for area in areas)


def test_missing_runs_and_refused_claims_are_in_page_and_markdown(store, tmp_path):
    what = experiment([SCRATCH, BANK])
    finish(what, store, by_arm({"scratch": [10.0, 11.0], "bank": [19.0]}))
    text = report(what, store, tmp_path / "report")
    assert "3 of 4 runs finished" in text and "missing: seed 1: not run" in text
    assert "No claim" in text and "The control random is no arm of this experiment." in text
    assert "A gain" not in text
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "no claim, since the control random is no arm of this experiment." in markdown
    assert "## Verdicts" in markdown and "| no claim | the control random is no arm of this experiment |" in markdown
    assert "## Runs that are missing" in markdown and "seed 1: not run" in markdown


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_can_be_reported(name, store, tmp_path):
    what = load_experiment(name, "smoke")
    finish(what, store, lambda run: 20.0 + run.config.seed)
    page = Page(report(what, store, tmp_path / "report"))
    assert page.figures and page.fetched == []


def test_a_file_in_the_way_changes_nothing(store, tmp_path):
    what = experiment([SCRATCH])
    finish(what, store, by_arm({"scratch": [1.0, 2.0]}))
    folder = tmp_path / "report"
    (folder / "report.html").mkdir(parents=True)
    with pytest.raises(SaveError):
        write_report([what], store, folder)
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_the_command(tmp_path):
    """Results elsewhere are named in the commands that the page shows."""
    what = load_experiment("table7", "smoke")
    folder = tmp_path / "my results"
    finish(what, ResultStore(folder), lambda run: 20.0)
    app = typer.Typer()
    app.command()(report_command)
    arguments = ["table7", "--size", "smoke", "--results", str(folder), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == str(tmp_path / "out" / "report.html")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"masterkey bench report table7 --size smoke --results &#x27;{folder}&#x27; -o report" in page
    assert "its figures mean nothing" in page


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Open a page in a headless Chromium; return its document and what the console said."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here; apt-get install chromium")

    def call(page, *options):
        own = [f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--disable-sync", "--enable-logging=stderr"]
        command = [program, *FLAGS.split(), *own, "--v=0", *(options or ["--dump-dom"]), page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return call


def test_chromium_has_nothing_to_complain_about(browse, store, tmp_path):
    (page, *_) = write_report(every_layout(store), store, tmp_path / "report")
    document, console = browse(page)
    assert console == []
    assert document.count("<svg") == page.read_text(encoding="utf-8").count("<svg") > 20
    assert "</section></main>" in document
    # and it would have said so: the policy blocks what comes from elsewhere
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("<main>", '<main><img src="https://example.org/x.png">'))
    assert any("Content Security Policy" in line for line in browse(broken)[1])


@pytest.mark.parametrize(("scheme", "darkest", "lightest"), [("light", 180, 255), ("dark", 0, 75)])
def test_the_page_can_be_seen(browse, store, tmp_path, scheme, darkest, lightest):
    (page, *_) = write_report(every_layout(store), store, tmp_path / "report")
    picture = tmp_path / "seen.png"
    wanted = "--blink-settings=preferredColorScheme=" + {"dark": "0", "light": "1"}[scheme]
    _, console = browse(page, f"--screenshot={picture}", "--window-size=1000,1600", "--hide-scrollbars", wanted)
    assert console == []
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.float64)
    assert darkest <= np.median(pixels) <= lightest  # what is behind the text
    inked = np.abs(pixels - np.median(pixels)) > 60
    assert 0.01 < inked.mean() < 0.5
    assert (inked.any(axis=1).reshape(-1, 100).any(axis=1)).all(), "a tenth of the page or more is blank"


def test_a_phone_need_not_scroll_sideways(browse, store, tmp_path):
    """Measured in a frame of 390 pixels; what is too wide scrolls inside its own box."""
    (page, *_) = write_report(every_layout(store), store, tmp_path / "report")

    def width(text):
        frame = f'<iframe style="width:390px;height:800px;border:0" srcdoc="{escape(text)}"></iframe>'
        probe = "onload = () => { document.title = document.querySelector('iframe').contentDocument.body.scrollWidth }"
        (tmp_path / "probe.html").write_text(f"<!doctype html><title>none</title>{frame}<script>{probe}</script>")
        document, _ = browse(tmp_path / "probe.html")
        return int(re.search("<title>(.*?)</title>", document)[1])

    text = page.read_text(encoding="utf-8")
    assert width(text) <= 390
    assert width(text.replace("<main>", '<main><p style="width:600px">wide</p>')) >= 600
