"""Data sets on the Hub: the real ``datasets`` and ``huggingface_hub`` against a server on this machine.

What the catalogue's repositories really hold was never seen; here are repositories with their ids, columns and splits.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, card
from hub_worker import Done, Worker
from picture_folders import hub_folder, load
from PIL import Image

from masterkey.benchmarks.data.catalogue import CATALOGUE

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def bench(_hub_server: HubServer, home: Path) -> Iterator[Worker]:
    """The command line, with this Hub and no data set at hand."""
    (home / "no-data").mkdir()
    with Worker(_hub_server, home, MASTERKEY_DATA=str(home / "no-data"), MASTERKEY_CACHE=str(home / "cache")) as worker:
        yield worker


def put(hub: HubServer, repo: str, root: Path) -> None:
    """Put a folder of parquet files on the Hub as a data set."""
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.parquet")}
    hub.add(f"datasets/{repo}", {**files, "README.md": card(license="mit")})


def bugs(root: Path, learnt: int = 6) -> Path:
    return hub_folder(root, {"train": [0, 1] * learnt, "test": [0, 1, 1]}, names=["ant", "bee"])


def loaded(bench: Worker, name: str, **options: object) -> Done:
    """What loading a set prints: its classes, how much is learnt from and judged on, and the hash of all."""
    return bench.python(
        "import json\nfrom masterkey.benchmarks.config import DataConfig\n"
        "from masterkey.benchmarks.data import load_data\n"
        f"data = load_data(DataConfig({name!r}, **{ {'pixels': 8, **options}!r}))\n"
        "print(json.dumps([data.classes, len(data.train.labels), len(data.evaluate.labels), data.sha256]))"
    )


def test_a_repository_gives_what_its_folder_gives_and_is_fetched_once(hub, bench, tmp_path):
    put(hub, "org/bugs", bugs(tmp_path / "set"))
    first = loaded(bench, "org/bugs")
    local = load(tmp_path / "set", tmp_path / "cache")
    assert first.code == 0, first.err
    assert json.loads(first.out) == [["ant", "bee"], 12, 3, local.sha256]
    assert len(hub.log(".parquet", "GET")) == 2
    hub.clear()
    assert loaded(bench, "org/bugs").out == first.out
    assert loaded(bench, "org/bugs", evaluate="validation").code == 0
    assert not hub.log(".parquet", "GET")


def test_a_new_commit_is_another_set(hub, bench, tmp_path):
    put(hub, "org/grows", bugs(tmp_path / "one"))
    assert json.loads(loaded(bench, "org/grows").out)[1] == 12
    put(hub, "org/grows", bugs(tmp_path / "two", learnt=8))
    assert json.loads(loaded(bench, "org/grows").out)[1] == 16


def test_an_experiment_runs_on_a_repository(hub, bench, tmp_path):
    put(hub, "org/target", bugs(tmp_path / "set"))
    words = ("--size", "smoke", "--target", "org/target", "--results", str(tmp_path / "results"))
    done = bench("bench", "run", "arms", *words, "--only", "random", "--only", "scratch")
    assert done.code == 0, done.err
    runs = [json.loads(path.read_text()) for path in (tmp_path / "results" / "runs").glob("*.json")]
    assert [run["metrics"]["config"]["data"]["name"] for run in runs] == ["org/target"] * 2
    report = bench("bench", "report", "arms", *words, "-o", str(tmp_path / "report"))
    assert report.code == 0 and "org/target" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_known_name_asks_for_its_repository_and_refuses_another_set(hub, bench, tmp_path, name):
    known = CATALOGUE[name]
    splits = {split: [0, 1, 2] for split in (*known.train, known.test)}
    more = {known.only[0]: {split: [known.only[1], "photo", known.only[1]] for split in splits}} if known.only else {}
    folder = hub_folder(tmp_path / "set", splits, names=["a", "b", "c"], image=known.image, **more)
    put(hub, known.repo, folder)
    done = loaded(bench, name)
    assert hub.log(f"/datasets/{known.repo}/resolve/")
    rows = 2 if known.only else 3
    found = (3, rows * len(known.train), rows)
    assert done.code == 99 and f"is not the {name} expected: (classes, train, test) is {found}, not" in done.err
    assert f"not {known.size}; to use it as it is, name it {known.repo}" in done.err


def test_a_known_name_is_loaded_where_its_repository_holds_what_was_published(hub, bench, tmp_path):
    """Flowers 102 by its Table 2 figures, two splits to learn from: 2,040 and 6,149 pictures of 102 classes."""
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (200, 30, 90)).save(buffer, "PNG")
    picture = {"bytes": buffer.getvalue(), "path": None}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=102)})
    (tmp_path / "data").mkdir()
    for split, count in {"train": 1_020, "validation": 1_020, "test": 6_149}.items():
        rows = {"image": [picture] * count, "label": [i % 102 for i in range(count)]}
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    put(hub, CATALOGUE["flowers102"].repo, tmp_path)
    final, choice = loaded(bench, "Flowers102"), loaded(bench, "flowers102", evaluate="validation")
    assert (final.code, choice.code) == (0, 0), final.err + choice.err
    assert [json.loads(done.out)[1:3] for done in (final, choice)] == [[2_040, 6_149], [1_020, 1_020]]


@pytest.mark.parametrize(
    ("repo", "about", "sentence"),
    [
        ("org/nowhere", None, "org/nowhere on the Hub cannot be loaded: "),
        ("org/secret", {"private": True}, "org/secret on the Hub cannot be loaded: "),
    ],
)
def test_a_repository_that_cannot_be_had_is_one_sentence(hub, bench, tmp_path, repo, about, sentence):
    if about:
        hub.add(f"datasets/{repo}", {"README.md": card(license="mit")}, **about)
    words = ("--size", "smoke", "--target", repo, "--results", str(tmp_path / "results"), "--only", "scratch")
    done = bench("bench", "run", "arms", *words)
    assert done.code == 1 and "Traceback" not in done.err
    assert sentence in done.err and "name its folder, or put it under $MASTERKEY_DATA" in done.err


def test_a_server_that_fails_midway_loses_nothing(hub, bench, tmp_path):
    put(hub, "org/torn", bugs(tmp_path / "set"))
    hub.fault("test-00000-of-00001.parquet", "status", code=403)
    done = loaded(bench, "org/torn")
    assert done.code == 99 and "org/torn on the Hub" in done.err
    hub.faults.clear()
    assert json.loads(loaded(bench, "org/torn").out)[1:3] == [12, 3]
