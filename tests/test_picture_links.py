"""Folders of pictures with links in them: followed, but never in a circle."""

import pytest
from picture_folders import image_folder, load, picture

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.data.source import visible_files


def test_links_to_folders_elsewhere_are_followed(tmp_path, cache):
    folder = image_folder(tmp_path / "bugs")
    before = len(load(folder, cache).train.labels)
    more = tmp_path / "elsewhere" / "deep"
    more.mkdir(parents=True)
    (more / "new.png").write_bytes(picture(1000))
    (folder / "train" / "ant" / "one").symlink_to(more.parent)
    (folder / "train" / "ant" / "two").symlink_to(more)
    (folder / "train" / "cat").symlink_to(more)
    data = load(folder, cache)
    assert data.classes == ("ant", "bee", "cat")
    assert len(data.train.labels) == before + 3


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_a_link_back_is_refused_by_name(tmp_path, cache, target):
    folder = image_folder(tmp_path / "bugs")
    loop = folder / "train" / "ant" / "loop"
    loop.symlink_to(target)
    with pytest.raises(BenchmarkError, match=f"{loop} is a link back to .*, which it lies in") as refused:
        load(folder, cache)
    assert "\n" not in str(refused.value)


def test_a_link_back_from_outside_is_refused(tmp_path, cache):
    folder = image_folder(tmp_path / "bugs")
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "train" / "ant" / "out").symlink_to(outside)
    (outside / "back").symlink_to(folder / "train")
    with pytest.raises(BenchmarkError, match="train/ant/out/back is a link back to"):
        load(folder, cache)


def test_a_class_that_is_a_link_back_is_refused(tmp_path, cache):
    folder = image_folder(tmp_path / "bugs")
    (folder / "train" / "loop").symlink_to(folder)
    with pytest.raises(BenchmarkError, match="train/loop is a link back to"):
        load(folder, cache)


def test_files_come_in_one_order_with_links_or_without(tmp_path):
    for name in ("b.png", "a/2.png", "a/1/0.png", "c/.hidden/0.png", "c/0.png", ".x.png"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(b"")
    expected = [tmp_path / "all" / name for name in ("b.png", "a/2.png", "a/1/0.png", "c/0.png")]
    assert list(visible_files(tmp_path / "all")) == expected
    assert list(visible_files(tmp_path / "all", follow_links=True)) == expected
