import io
import os
import sys
from pathlib import Path

import numpy as np
import picture_folders
import pytest
from picture_folders import SIMPLE, hub_folder, image_folder, leftovers, load, picture
from PIL import Image

from masterkey.benchmarks.config import BenchmarkError, DataConfig
from masterkey.benchmarks.data import catalogue, load_data
from masterkey.benchmarks.data.catalogue import CATALOGUE, HubSet, resolve
from masterkey.benchmarks.data.decode import decode
from masterkey.benchmarks.data.hub import find_source
from masterkey.benchmarks.data.views import classes_in_view

datasets = pytest.importorskip("datasets")


# What a name means ---------------------------------------------------------------------------------------------------


def test_names_are_found_in_the_stated_order(tmp_path, monkeypatch):
    (tmp_path / "data" / "tiny_imagenet").mkdir(parents=True)
    (tmp_path / "here" / "pets").mkdir(parents=True)
    monkeypatch.setenv(catalogue.DATA_VARIABLE, str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "here")
    assert resolve("pets") == tmp_path / "here" / "pets"
    assert resolve("./pets") == tmp_path / "here" / "pets"
    assert resolve("tiny-imagenet") == resolve("tiny_imagenet") == tmp_path / "data" / "tiny_imagenet"
    assert resolve("food101") is CATALOGUE["food101"]
    assert resolve("somebody/something") == HubSet("somebody/something")


def test_data_are_looked_for_beside_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "shared" / "data" / "pets").mkdir(parents=True)
    (tmp_path / "main").mkdir()
    monkeypatch.delenv(catalogue.DATA_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path / "main")
    assert resolve("pets").resolve() == tmp_path / "shared" / "data" / "pets"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("flowers10", "flowers102"),
        ("petz", "did you mean pets"),
        ("xyzzyx", "known are cifar10"),
        ("./nowhere", "no data folder"),
        ("", "an empty name"),
        ("a" * 5000, "no data set"),
    ],
)
def test_unknown_names_are_refused_with_near_ones(name, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(catalogue.DATA_VARIABLE, str(tmp_path))
    with pytest.raises(BenchmarkError, match=says):
        resolve(name)


def test_the_catalogue_has_the_sizes_of_table_2():
    # seed 000, Table 2, to the thousand it rounds to; DomainNet's own list has 48,212 and 20,916
    rounded = {
        "imagenet": (1_000, 1_200, 50), "food101": (101, 75, 25), "domainnet-sketch": (345, 50, 20),
        "cifar10": (10, 50, 10), "stl10": (10, 5, 8), "pets": (37, 4, 3), "flowers102": (102, 2, 6),
    }  # fmt: skip
    for name, (classes, train, test) in rounded.items():
        ours = CATALOGUE[name].size
        assert ours[0] == classes
        assert ours[1] / 1000 == pytest.approx(train, rel=0.1)
        assert ours[2] / 1000 == pytest.approx(test, rel=0.25)


# Reading -------------------------------------------------------------------------------------------------------------


def test_an_image_folder_is_read_whole_and_in_order(tmp_path, cache):
    folder = image_folder(tmp_path / "bugs")
    (folder / "train" / "ant" / "deeper").mkdir()
    (folder / "train" / "ant" / "deeper" / "x.JPG").write_bytes(picture(99))
    for passed_over in ("notes.txt", "._0000.png"):
        (folder / "train" / "ant" / passed_over).write_text("no picture")
    data = load(folder, cache)
    assert data.classes == ("ant", "bee")
    assert data.train.labels.tolist() == [0] * 7 + [1] * 5
    assert data.evaluate.labels.tolist() == [0] * 2 + [1] * 3
    assert data.train.images.shape == (12, 8, 8, 3)
    for row, path in enumerate(sorted((folder / "train").glob("*/0*.png"))):
        expected = decode(path.read_bytes(), 8)
        assert (data.train.images[row if row < 6 else row + 1] == expected).all()
    assert (data.train.images[6] == decode(picture(99), 8)).all()


def test_both_layouts_give_the_same_data(tmp_path, cache):
    plain = load(image_folder(tmp_path / "plain"), cache)
    labels = {split: [i for i, n in enumerate(counts.values()) for _ in range(n)] for split, counts in SIMPLE.items()}
    laid_out = load(hub_folder(tmp_path / "hub", labels, names=["ant", "bee"]), cache)
    assert plain.sha256 == laid_out.sha256
    assert (plain.train.images == laid_out.train.images).all()
    assert (plain.evaluate.labels == laid_out.evaluate.labels).all()
    assert laid_out.classes == ("ant", "bee")


def test_folders_of_like_files_are_told_apart(tmp_path, cache):
    """An archive gives all its files one time, and pictures without compression have the same sizes."""
    folders = [image_folder(tmp_path / which / "set") for which in "ab"]
    for number, folder in enumerate(folders):
        for path in sorted(folder.rglob("*.png")):
            Image.new("RGB", (20, 16), (number, 0, 0)).save(path.with_suffix(".bmp"))
            path.unlink()
            os.utime(path.with_suffix(".bmp"), (10**9, 10**9))
    one, other = (load(folder, cache) for folder in folders)
    assert one.sha256 != other.sha256 and not np.array_equal(one.train.images, other.train.images)


def test_file_names_do_not_decide_on_a_split(tmp_path, cache):
    # ``datasets`` alone would take train/ant/my_test_3.png for a picture of the test part
    folder = image_folder(tmp_path / "bugs")
    (folder / "train" / "ant" / "my_test_3.png").write_bytes(picture(99))
    (folder / "train" / "validation-bench").mkdir()
    (folder / "train" / "validation-bench" / "1.png").write_bytes(picture(98))
    data = load(folder, cache)
    assert (len(data.train.labels), len(data.evaluate.labels)) == (13, 5)
    assert "validation-bench" in data.classes


def test_labels_may_be_numbers_without_names(tmp_path, cache):
    data = load(hub_folder(tmp_path / "set", {"train": [7, 3, 7, 20], "test": [20]}, names=None), cache)
    assert data.classes == ("3", "7", "20")
    assert data.train.labels.tolist() == [1, 0, 1, 2]


def test_decoding_is_resizing_the_short_side_and_cropping_the_centre():
    transforms = pytest.importorskip("torchvision.transforms.v2")
    reference = transforms.Compose(
        [transforms.Resize(48, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(48)]
    )
    coarse = Image.open(io.BytesIO(picture(1, 24, 18)))
    for width, height, most in ((160, 160, 0), (240, 160, 2), (160, 241, 6), (64, 32, 6)):
        large = coarse.resize((width, height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        large.save(buffer, "PNG")
        theirs = np.asarray(reference(large)).astype(int)
        ours = decode(buffer.getvalue(), 48).astype(int)
        assert np.abs(ours - theirs)[1:-1, 1:-1].mean() <= most


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_becomes_rgb(mode):
    grey = Image.fromarray(np.full((9, 9), 255, dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    grey.save(buffer, "TIFF")
    assert (decode(buffer.getvalue(), 4) == 255).all()


def test_pictures_are_turned_upright():
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = 255
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    assert (decode(buffer.getvalue(), 8)[4:] == 255).all()


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["plain", "hub"])
def test_corrupt_pictures_are_named_and_counted(layout, tmp_path, cache, capsys, monkeypatch):
    good = picture(5, 64, 64)
    if layout == "plain":
        folder = image_folder(tmp_path / "bugs")
        (folder / "train" / "ant" / "0002.png").write_bytes(good[: len(good) // 2])
        (folder / "train" / "bee" / "0001.png").write_bytes(b"not a picture")
        (folder / "train" / "bee" / "0003.png").write_bytes(b"")
    else:
        bad = {2: good[:99], 7: b"no", 9: None}
        monkeypatch.setattr(picture_folders, "picture", lambda seed: bad.get(seed, good))
        folder = hub_folder(tmp_path / "set", {"train": [0] * 6 + [1] * 5, "test": [0, 0, 1, 1, 1]}, names=["a", "b"])
    names = {
        "plain": ["train/ant/0002.png", "train/bee/0001.png", "train/bee/0003.png"],
        "hub": [f"row {row} of train (from 0)" for row in (2, 7, 9)],
    }[layout]
    with pytest.raises(BenchmarkError, match=r"split train: 3 of 11 pictures .*--skip-corrupt") as caught:
        load(folder, cache)
    assert all(f" {name}: " in str(caught.value) for name in names)
    assert "BytesIO" not in str(caught.value)
    data = load(folder, cache, skip_corrupt=True)
    assert data.skipped == tuple(names)
    assert "3 of 11 pictures" in capsys.readouterr().err
    assert data.train.labels.tolist() == [0] * 5 + [1] * 3
    with pytest.raises(BenchmarkError, match="3 of 11"):
        load(folder, cache)
    if layout == "plain":
        for name in ("ant/0002.png", "bee/0001.png", "bee/0003.png"):
            (folder / "train" / name).write_bytes(good)
        assert len(load(folder, cache).train.labels) == 11


def test_many_corrupt_pictures_are_not_all_named(tmp_path, cache):
    folder = image_folder(tmp_path / "bugs", {"train": {"a": 30, "b": 1}, "test": {"a": 1, "b": 1}})
    for path in (folder / "train" / "a").iterdir():
        path.write_bytes(b"rotten")
    with pytest.raises(BenchmarkError, match=r"30 of 31 pictures.* and 20 more"):
        load(folder, cache)
    with pytest.raises(BenchmarkError, match=r"1 of 2 classes have no picture in train.*: a"):
        load(folder, cache, skip_corrupt=True)


def test_a_class_missing_from_train_is_named(tmp_path, cache):
    plain = image_folder(tmp_path / "bugs", {"train": {"ant": 3, "fly": 0}, "test": {"ant": 1, "bee": 2}})
    with pytest.raises(BenchmarkError, match=r"2 of 3 classes have no picture in train.*: bee, fly"):
        load(plain, cache)
    laid_out = hub_folder(tmp_path / "set", {"train": [0, 0], "test": [0, 1]}, names=["a", "b"])
    with pytest.raises(BenchmarkError, match=r"1 of 2 classes have no picture in train.*: b"):
        load(laid_out, cache)


def test_sixteen_bits_are_shown_from_black_to_white():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    for file_format in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(ramp.astype(np.uint16)).save(buffer, file_format)
        shown = decode(buffer.getvalue(), 64)
        assert shown.dtype == np.uint8 and np.array_equal(shown[..., 0], shown[..., 2])
        assert abs(shown[..., 0].astype(int) - ramp / 257).max() < 1
    buffer, about = io.BytesIO(), Image.Exif()
    about[0x0112] = 3  # upside down
    Image.fromarray(ramp.astype(np.uint16)).save(buffer, "PNG", exif=about)
    assert abs(decode(buffer.getvalue(), 64)[::-1, ::-1, 0].astype(int) - ramp / 257).max() < 1
    buffer = io.BytesIO()
    Image.fromarray((ramp / 65535).astype(np.float32)).save(buffer, "TIFF")
    with pytest.raises(ValueError, match="32 bits a pixel"):
        decode(buffer.getvalue(), 64)


def test_pictures_that_cannot_be_read_here_are_named_not_passed_over(tmp_path, cache):
    folder = image_folder(tmp_path / "set")
    first = folder / "train" / "ant" / "0000.png"
    first.rename(first.with_suffix(".jfif"))  # Pillow looks at the content
    assert len(load(folder, cache).train.labels) == 11
    (folder / "train" / "ant" / "new.heic").write_bytes(b"no picture that Pillow knows")
    (folder / "test" / "bee" / "torn.jpg").write_bytes(b"torn")
    with pytest.raises(BenchmarkError, match=r"new\.heic.*split test: 1 of 6 pictures cannot be decoded: .*torn\.jpg"):
        load(folder, cache)


def test_a_picture_that_could_not_be_read_once_is_not_remembered_as_damaged(tmp_path, cache, monkeypatch):
    folder = image_folder(tmp_path / "set")
    read = Path.read_bytes

    def too_many(path):
        if path.name == "0003.png":
            raise OSError(24, "Too many open files", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", too_many)
        with pytest.raises(BenchmarkError, match=r"^train/ant/0003\.png cannot be read \(Too many open files\); try"):
            load(folder, cache, skip_corrupt=True)
    assert leftovers(cache) == []
    assert len(load(folder, cache).train.labels) == 11


@pytest.mark.parametrize("layout", ["classes beside each other", "train alone", "train alone, as on the Hub"])
def test_a_set_without_a_test_part_sets_a_fifth_of_each_class_aside(tmp_path, cache, capsys, layout):
    if layout == "train alone, as on the Hub":
        root = hub_folder(tmp_path / "set", {"train": [0] * 20 + [1] * 10}, names=["ant", "bee"])
    else:
        root = image_folder(tmp_path / "set", {"train": {"ant": 20, "bee": 10}})
    folder = root / "train" if layout == "classes beside each other" else root
    final = load(folder, cache)
    assert final.classes == ("ant", "bee")
    assert np.bincount(final.evaluate.labels).tolist() == [4, 2]
    assert "has no test part: a fifth of each class is set aside" in capsys.readouterr().err
    choice = load(folder, cache, evaluate="validation", split_seed=3)
    assert np.bincount(choice.evaluate.labels).tolist() == [3, 2]  # a fifth of the sixteen and eight that are left

    def rows(part) -> set[bytes]:
        return {picture.tobytes() for picture in part.images}

    assert rows(final.train) == rows(choice.train) | rows(choice.evaluate)
    assert not rows(final.train) & rows(final.evaluate)
    assert rows(load(folder, cache, split_seed=3).evaluate) == rows(final.evaluate)  # nothing chooses the test part


def test_pictures_that_are_learnt_from_can_be_stored_larger_than_those_that_are_judged(tmp_path, cache):
    folder = image_folder(tmp_path / "set", {"train": {"ant": 20, "bee": 10}, "test": {"ant": 2, "bee": 3}})
    whole = load(folder, cache, train_size=12)
    assert [stored.tobytes() for stored in whole.train.images] == [decode(picture(i), 12).tobytes() for i in range(30)]
    for options in ({"evaluate": "test"}, {"evaluate": "validation", "split_seed": 2, "per_class": 3}):
        plain, larger, same = (load(folder, cache, train_size=size, **options) for size in (None, 12, 8))
        assert larger.train.images.shape == (len(plain.train.labels), 12, 12, 3)
        assert (larger.train.labels == plain.train.labels).all() and larger.sha256 != plain.sha256 == same.sha256
        assert np.array_equal(larger.evaluate.images, plain.evaluate.images)
        rows = {decode(picture(i), 8).tobytes(): decode(picture(i), 12).tobytes() for i in range(30)}
        pairs = zip(plain.train.images, larger.train.images, strict=True)
        assert all(rows[small.tobytes()] == large.tobytes() for small, large in pairs)


def test_a_picture_that_can_be_decoded_at_one_of_two_sizes_only_is_refused(tmp_path, cache, monkeypatch):
    folder = image_folder(tmp_path / "set")

    def torn(data: bytes, size: int) -> np.ndarray:
        if (data, size) == (picture(3), 12):
            raise OSError("no such device")
        return decode(data, size)

    monkeypatch.setattr("masterkey.benchmarks.data.decode.decode", torn)
    with pytest.raises(BenchmarkError, match="split train: not the same pictures could be decoded at 12 and at 8"):
        load(folder, cache, train_size=12, skip_corrupt=True)


def test_folders_of_the_wrong_layout_are_refused_with_what_was_found(tmp_path, cache):
    parts = image_folder(tmp_path / "a" / "pictures", {"Train": {"ant": 1, "bee": 1}, "Test": {"ant": 1, "bee": 1}})
    (parts / "notes.txt").write_text("x")
    said = r"2 folders \(Test, Train\) and 1 \.txt files; expected a folder .*; rename Test to test and Train to train$"
    with pytest.raises(BenchmarkError, match=said):
        load(parts, cache)
    half = image_folder(tmp_path / "half" / "pictures", {"Train": {"ant": 1, "bee": 1}, "test": {"ant": 1, "bee": 1}})
    with pytest.raises(BenchmarkError, match=r"; rename Train to train$"):
        load(half, cache)
    beside = image_folder(tmp_path / "beside", {"bare": {"ant": 1, "bee": 1, "Test": 1}}) / "bare"
    with pytest.raises(BenchmarkError, match=r"3 folders \(Test, ant, bee\); expected .*; rename Test to test$"):
        load(beside, cache)
    one = image_folder(tmp_path / "one", {"bare": {"ant": 1}}) / "bare"
    with pytest.raises(BenchmarkError, match=r"1 folders \(ant\); expected"):
        load(one, cache)
    some = image_folder(tmp_path / "some", {"bare": {"ant": 1, "bee": 0, "cat": 1}}) / "bare"
    with pytest.raises(BenchmarkError, match=r"has 2 folders of pictures, and none in bee: fill or remove it"):
        load(some, cache)
    deeper = image_folder(
        tmp_path / "deeper", {"train/images": {"ant": 2, "bee": 2}, "test/images": {"ant": 1, "bee": 1}}
    )
    with pytest.raises(BenchmarkError, match=r"has one class, 'images', so there is nothing to tell apart"):
        load(deeper, cache)
    for name in ("Test", "holdout"):
        other = image_folder(tmp_path / name, {"train": {"ant": 2, "bee": 2}, name: {"ant": 1, "bee": 1}})
        with pytest.raises(BenchmarkError, match=rf"has '{name}' beside train, which looks like a part .* and is none"):
            load(other, cache)
    fine = image_folder(tmp_path / "fine", {**SIMPLE, "docs": {"figures": 1}, "venv": {"lib": 2}})
    assert load(fine, cache).classes == ("ant", "bee")
    many = image_folder(tmp_path / "many", {part: {"ant": 1, "bee": 1} for part in ("train", "valid", "val", "test")})
    with pytest.raises(BenchmarkError, match="more than one validation split: valid, val; keep one"):
        find_source(str(many), {})
    two = image_folder(tmp_path / "two", {part: {"ant": 1, "bee": 1} for part in ("train", "validation", "val")})
    with pytest.raises(BenchmarkError, match="more than one validation split: validation, val; keep one"):
        find_source(str(two), {})  # no test part: neither is taken for it
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchmarkError, match="holds nothing; expected"):
        load(tmp_path / "empty", cache)
    with pytest.raises(BenchmarkError, match="holds the splits test; expected"):
        load(hub_folder(tmp_path / "b", {"test": [0, 1]}, names=["a", "b"]), cache)
    flat = image_folder(tmp_path / "c", {"train": {"ant": 1}, "test": {"ant": 1}})
    (flat / "test" / "ant" / "0000.png").rename(flat / "test" / "0000.png")
    (flat / "test" / "ant").rmdir()
    with pytest.raises(BenchmarkError, match=r"test holds 1 \.png files; expected"):
        load(flat, cache)
    no_image = tmp_path / "e"
    (no_image / "data").mkdir(parents=True)
    for split in ("train", "test"):
        datasets.Dataset.from_dict({"text": ["x"], "label": [0]}).to_parquet(no_image / "data" / f"{split}.parquet")
    with pytest.raises(
        BenchmarkError, match=r"columns text \(Value\), label \(Value\); expected one of images and label"
    ):
        load(no_image, cache)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "train.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(BenchmarkError, match=r"cannot be read as a data set: .*; expected"):
        load(tmp_path / "f", cache)
    assert not leftovers(cache)


def test_pictures_without_labels_are_refused(tmp_path, cache):
    folder = hub_folder(tmp_path / "set", {"train": [0, 1], "test": [-1, -1, 0]}, names=["a", "b"])
    with pytest.raises(BenchmarkError, match="split test: 2 of 3 pictures have no label"):
        load(folder, cache)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pixels": 0}, "pixels is 0; it must be 1 or more"),
        ({"crop_pct": 1.5}, "crop_pct is 1.5; it must be above 0 and at most 1"),
        ({"evaluate": "train"}, "evaluate is 'train'; there are test, validation"),
        ({"validation": 1.0}, "validation is 1; it must be above 0 and below 1"),
        ({"split_seed": -1}, r"split_seed is -1; it must be from 0 to 2\*\*32 - 1"),
        ({"per_class": 0}, "per_class is 0; it must be 1 or more"),
        ({"view": "artificial"}, "view is 'artificial'; there are man-made, natural"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(options, says, tmp_path, cache):
    with pytest.raises(BenchmarkError, match=says):
        load(tmp_path, cache, **options)


# The Hub, with a folder in its place ---------------------------------------------------------------------------------


def test_a_catalogued_set_takes_its_columns_splits_and_rows(tmp_path, cache, monkeypatch):
    repo = hub_folder(
        tmp_path / "repo", {"train": [0, 1, 0, 1], "valid": [1, 0, 1]}, names=["a", "b"], image="img",
        domain={"train": ["sketch", "sketch", "photo", "sketch"], "valid": ["photo", "sketch", "sketch"]},
    )  # fmt: skip
    hub_set = HubSet(str(repo), "img", "label", ("train",), "valid", ("domain", "sketch"), size=(2, 3, 2))
    monkeypatch.setitem(CATALOGUE, "drawn", hub_set)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(catalogue.DATA_VARIABLE, str(tmp_path / "none"))
    data = load_data(DataConfig("drawn", pixels=8), cache)
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.evaluate.labels.tolist() == [0, 1]
    assert (data.train.images[2] == decode(picture(3), 8)).all()
    monkeypatch.setitem(CATALOGUE, "drawn", HubSet(str(repo), "img", "label", ("train",), "valid", size=(2, 3, 2)))
    with pytest.raises(BenchmarkError, match=r"is not the drawn expected: .* is \(2, 4, 3\), not \(2, 3, 2\)"):
        load_data(DataConfig("drawn", pixels=8), cache)
    monkeypatch.setitem(CATALOGUE, "drawn", HubSet(str(repo), "img", "label", ("train",), "test"))
    with pytest.raises(BenchmarkError, match="has no split test; it has train, valid"):
        load_data(DataConfig("drawn", pixels=8), cache)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch, tmp_path, cache):
    def unreachable(*_names):
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    monkeypatch.setenv(catalogue.DATA_VARIABLE, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        BenchmarkError, match=r"uoft-cs/cifar10 on the Hub cannot be loaded: Couldn't reach the Hub; where"
    ):
        load_data(DataConfig("cifar10", pixels=8), cache)


def test_a_missing_extra_is_named(tmp_path, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.parquet").write_bytes(b"")
    with pytest.raises(BenchmarkError, match="masterkey\\[bench\\]"):
        load(folder, cache)


# Real data -----------------------------------------------------------------------------------------------------------

# shared/data/README.md: classes, then pictures of each split
REAL = {
    "pets": (37, {"train": 3_680, "test": 3_669}),
    "flowers17": (17, {"train": 680, "validation": 340, "test": 340}),
    "cifar10": (10, {"train": 50_000, "test": 10_000}),
    "tiny_imagenet": (200, {"train": 50_000, "validation": 10_000}),
    "pacs_sketch": (7, {"train": 2_750, "test": 1_179}),
}


@pytest.mark.parametrize("name", REAL)
def test_the_sets_at_hand_are_what_their_readme_says(name, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv(catalogue.DATA_VARIABLE, str(data_dir))
    classes, counts = REAL[name]
    with find_source(name).open(tmp_path) as opened:
        assert len(opened.classes) == classes
        assert {split: len(pictures.labels) for split, pictures in opened.splits.items()} == counts
        for pictures in opened.splits.values():
            assert len(np.unique(pictures.labels)) == classes
            assert decode(pictures.read(len(pictures.labels) - 1), 32).std() > 1
        if name == "tiny_imagenet":
            natural, made = (classes_in_view(opened.classes, view) for view in ("natural", "man-made"))
            assert (len(natural), len(made)) == (72, 128)


def test_flowers17_is_loaded(data_dir, cache, monkeypatch):
    monkeypatch.setenv(catalogue.DATA_VARIABLE, str(data_dir))
    final = load_data(DataConfig("flowers17", pixels=32, crop_pct=0.8), cache)
    assert (final.pixels, final.train.images.shape, final.evaluate.images.shape) == (
        32,
        (1020, 40, 40, 3),
        (340, 40, 40, 3),
    )
    assert np.bincount(final.train.labels).tolist() == [60] * 17
    tuning = load_data(DataConfig("flowers17", pixels=32, crop_pct=0.8, evaluate="validation"), cache)
    assert np.bincount(tuning.train.labels).tolist() == [40] * 17
    assert np.bincount(tuning.evaluate.labels).tolist() == [20] * 17
    assert (tuning.evaluate.images == final.train.images[680:]).all()
    assert final.classes[:2] == ("daffodil", "snowdrop")
