"""The cache of decoded pictures: made once, whole or not at all."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from picture_folders import hub_folder, image_folder, leftovers, load, picture

from masterkey.benchmarks.config import BenchmarkError, DataConfig
from masterkey.benchmarks.data import hub, load_data, loading
from masterkey.benchmarks.data.decode import decode
from masterkey.benchmarks.data.rows import PictureRows
from masterkey.metadata import canonical_json

datasets = pytest.importorskip("datasets")


def test_the_second_time_nothing_is_opened_or_decoded(tmp_path, cache, monkeypatch):
    folder = hub_folder(tmp_path / "set", {"train": [0, 1, 0, 1], "test": [1, 0]}, names=["a", "b"])
    options = {"evaluate": "validation", "validation": 0.5, "per_class": 1}
    first = load(folder, cache, **options)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}

    def forbidden(*_args, **_kwargs):
        raise AssertionError("opened again")

    monkeypatch.setattr(hub, "_datasets", forbidden)
    monkeypatch.setattr(loading, "decode_all", forbidden)
    second = load(folder, cache, **options)
    assert first.sha256 == second.sha256
    assert np.array_equal(first.train.images, second.train.images)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before
    with pytest.raises(ValueError, match="read-only"):
        second.train.images.pictures[0] = 0


def test_two_caches_hold_the_same_bytes(tmp_path):
    folder = image_folder(tmp_path / "bugs")
    contents = []
    for name in ("one", "two"):
        load(folder, tmp_path / name)
        contents.append(
            {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*8")}
        )
    assert len(contents[0]) == 2
    assert contents[0] == contents[1]


def test_a_changed_source_is_decoded_again(tmp_path, cache):
    folder = image_folder(tmp_path / "bugs")
    before = load(folder, cache)
    (folder / "train" / "ant" / "0000.png").write_bytes(picture(1000))
    changed = load(folder, cache)
    assert (changed.train.images[0] == decode(picture(1000), 8)).all()
    assert (changed.train.images[1:] == before.train.images[1:]).all()
    (folder / "train" / "bee" / "0000.png").rename(folder / "train" / "ant" / "0099.png")
    assert np.bincount(load(folder, cache).train.labels).tolist() == [7, 4]


def test_a_changed_parquet_file_is_decoded_again(tmp_path, cache):
    folder = hub_folder(tmp_path / "set", {"train": [0, 1, 0], "test": [1]}, names=["a", "b"])
    load(folder, cache)
    hub_folder(tmp_path / "other", {"train": [1, 1, 0], "test": [1]}, names=["a", "b"])
    name = "data/train-00000-of-00001.parquet"
    stat = (folder / name).stat()
    (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    os.utime(folder / name, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert load(folder, cache).train.labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    "damage", ["truncated", "longer", "no labels", "fewer labels", "no description", "half a description", "other"]
)
def test_a_damaged_cache_is_made_again(damage, tmp_path, cache):
    folder = image_folder(tmp_path / "bugs")
    expected = np.array(load(folder, cache).train.images)
    entry = next(cache.rglob("train-8"))
    meta = json.loads((entry / "meta.json").read_text())
    if damage == "truncated":
        os.truncate(entry / "images.u8", 100)
    elif damage == "longer":
        (entry / "images.u8").open("ab").write(b"x")
    elif damage == "no labels":
        (entry / "labels.i64").unlink()
    elif damage == "fewer labels":
        os.truncate(entry / "labels.i64", 8)
    elif damage == "no description":
        (entry / "meta.json").unlink()
    elif damage == "half a description":
        os.truncate(entry / "meta.json", 30)
    else:
        (entry / "meta.json").write_text(json.dumps({**meta, "fingerprint": "0" * 64}))
    data = load(folder, cache)
    assert (data.train.images == expected).all()
    assert len(data.train.labels) == len(expected)
    assert not leftovers(cache)


def test_a_part_of_a_split_takes_no_room_of_its_own(tmp_path, cache):
    folder = image_folder(tmp_path / "bugs", {"train": {"ant": 30, "bee": 20}, "test": {"ant": 2, "bee": 3}})
    whole, part = load(folder, cache), load(folder, cache, evaluate="validation")
    assert sum(path.stat().st_size for path in cache.rglob("images.u8")) == 55 * 8 * 8 * 3
    for one in (part.train, part.evaluate):
        assert isinstance(one.images, PictureRows) and len(one.images) == len(one.labels)
    both = np.concatenate([part.train.images, part.evaluate.images])
    rows = np.concatenate([part.train.images.rows, part.evaluate.images.rows])
    assert sorted(rows) == list(range(50)) and np.array_equal(both, whole.train.images[rows])
    # over the same bytes as a copy's
    digests = [
        hashlib.sha256(np.asarray(one.images).tobytes() + one.labels.tobytes()).hexdigest()
        for one in (part.train, part.evaluate)
    ]
    assert part.sha256 == hashlib.sha256(canonical_json([["ant", "bee"], *digests]).encode()).hexdigest()


@pytest.mark.parametrize("damage", ["fewer rows", "no rows", "a row too far", "another split", "no split"])
def test_a_damaged_part_is_made_again(damage, tmp_path, cache):
    folder = image_folder(tmp_path / "bugs")
    before = load(folder, cache, evaluate="validation")
    part = next(path.parent for path in cache.rglob("rows.i64") if path.stat().st_size == 8 * len(before.train.labels))
    meta = json.loads((part / "meta.json").read_text())
    if damage == "fewer rows":
        os.truncate(part / "rows.i64", 8)
    elif damage == "no rows":
        (part / "rows.i64").unlink()
    elif damage == "a row too far":
        (before.train.images.rows + 5).tofile(part / "rows.i64")
    elif damage == "another split":
        (part / "meta.json").write_text(json.dumps({**meta, "of_sha256": "0" * 64}))
    else:
        shutil.rmtree(part.parent / "train-8")
    after = load(folder, cache, evaluate="validation")
    assert after.sha256 == before.sha256 and np.array_equal(after.train.images.rows, before.train.images.rows)
    assert np.array_equal(after.train.images, [decode(picture(int(row)), 8) for row in after.train.images.rows])
    assert not leftovers(cache)


def test_an_entry_is_on_disk_before_it_is_in_its_place(tmp_path, cache, monkeypatch):
    """A power failure would else leave files of the right sizes, with nothing in them."""
    fsync, rename = os.fsync, Path.rename
    synced, placed = set(), {}

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def place(path: Path, target: Path) -> Path:
        if path.is_dir():
            placed[target.name] = {each.name: each.stat().st_ino in synced for each in (path, *path.iterdir())}
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "rename", place)
    load(image_folder(tmp_path / "bugs"), cache, per_class=5)
    part, *_ = (name for name in placed if name.startswith("part-"))
    assert set(placed) == {"train-8", "test-8", part}
    for files in placed.values():
        assert len(files) == 4  # the folder, pictures or rows, labels and description
        assert all(files.values())


def run_load(folder: Path, cache: Path, **options) -> subprocess.Popen:
    code = (
        "import sys; from pathlib import Path\n"
        "from masterkey.benchmarks.config import DataConfig; from masterkey.benchmarks.data import load_data\n"
        f"print(load_data(DataConfig({str(folder)!r}, **{options!r}), Path({str(cache)!r})).sha256)"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory) -> Path:
    """Takes long enough to decode that a process can be met while it does."""
    counts = {"train": {"a": 300, "b": 300}, "test": {"a": 1}}
    return image_folder(tmp_path_factory.mktemp("slow"), counts, distinct=50, width=200, height=200)


def written(cache: Path) -> int:
    """Bytes of the pictures that a build has on disk, while it goes on."""
    total = 0
    for folder, _, files in os.walk(cache):
        for name in files:
            if name == "images.u8" and ".partial" in folder:
                with suppress(FileNotFoundError):
                    total += (Path(folder) / name).stat().st_size
    return total


def test_a_build_that_is_killed_leaves_nothing_behind(slow_folder, cache):
    seed = random.randrange(10**6)
    print("seed", seed)
    draw = random.Random(seed)
    inside = 0
    for _ in range(4):
        process = run_load(slow_folder, cache, pixels=64)
        wanted = draw.uniform(0, 400 * 64 * 64 * 3)
        while process.poll() is None and written(cache) <= wanted:
            pass
        process.kill()
        process.communicate()
        inside += process.returncode == -signal.SIGKILL and written(cache) > 0
        assert process.returncode == 0 or not list(cache.rglob("test-64"))
    assert inside >= 1
    data = load(slow_folder, cache, pixels=64)
    clean = load(slow_folder, cache.parent / "clean", pixels=64)
    assert data.sha256 == clean.sha256
    assert not leftovers(cache)


def test_two_builders_at_once_both_succeed(slow_folder, cache):
    processes = [
        run_load(slow_folder, cache, pixels=16, evaluate=evaluate) for evaluate in ("test", "test", "validation")
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    first, second, carved = (stdout.strip() for stdout, _ in outputs)
    assert first == second == load(slow_folder, cache, pixels=16).sha256
    assert carved == load(slow_folder, cache, pixels=16, evaluate="validation").sha256
    assert not leftovers(cache)


@pytest.mark.parametrize("layout", ["plain", "hub"])
def test_a_full_disk_is_a_clean_refusal(layout, tmp_path, cache):
    if layout == "plain":
        folder = image_folder(tmp_path / "bugs", {"train": {"a": 40, "b": 40}, "test": {"a": 1, "b": 1}})
    else:
        folder = hub_folder(tmp_path / "set", {"train": [0, 1] * 40, "test": [1, 0]}, names=["a", "b"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    load(folder, cache, pixels=4)
    whole = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(BenchmarkError, match=r"cannot be written .* nothing half is left"):
            load(folder, cache, pixels=32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == whole
    assert load(folder, cache, pixels=32).train.images.shape == (80, 32, 32, 3)


def test_a_cache_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BenchmarkError, match=r"cannot be written under .*MASTERKEY_CACHE"):
        load(image_folder(tmp_path / "bugs"), tmp_path / "file")


def test_the_cache_folder_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "elsewhere"))
    load_data(DataConfig(str(image_folder(tmp_path / "bugs")), pixels=8))
    assert list((tmp_path / "elsewhere").glob("bugs-*/train-8/images.u8"))
