import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from masterkey import atlas
from masterkey.atlas import GRID, HEADING, INK, MARGIN, MAX_HEIGHT, PAPER, TOP, draw_atlas, save_atlas
from masterkey.errors import MasterkeyError, SaveError

RED, BLUE, WHITE = (178, 24, 43), (33, 102, 172), (255, 255, 255)


@pytest.fixture
def written(monkeypatch):
    """Every text that is drawn, as (text, left, top, right, bottom)."""
    texts = []
    original = ImageDraw.ImageDraw.text

    def text(self, xy, text, fill=None, font=None, anchor=None, *args, **kwargs):
        texts.append((text, *self.textbbox(xy, text, font, anchor)))
        original(self, xy, text, fill, font, anchor, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def headings(written):
    return [text for text, *_ in written if "filter" in text and " to " in text]


def panels(image):
    """Where each panel begins: the tops of the grid's left border in the first column of the content."""
    column = [image.getpixel((MARGIN, y)) == GRID for y in range(TOP, image.height)]
    starts = [y for y in range(1, len(column)) if column[y] and not column[y - 1]]
    return [TOP + y for y in starts if all(column[y : y + 8])]


def tiles(image, top, kh, kw, block, count, columns):
    """The colour of each weight, (count, kh, kw, 3); blocks must be uniform and lines 1 pixel wide."""
    pixels = np.asarray(image).astype(int)
    found = []
    for index in range(count):
        y = top + index // columns * (kh * block + 1)
        x = MARGIN + index % columns * (kw * block + 1)
        frame = pixels[y : y + kh * block + 2, x : x + kw * block + 2]
        for edge in (frame[0], frame[-1], frame[:, 0], frame[:, -1]):
            assert (edge == GRID).all()
        blocks = frame[1:-1, 1:-1].reshape(kh, block, kw, block, 3).swapaxes(1, 2)
        assert (blocks == blocks[:, :, :1, :1]).all()
        found.append(blocks[:, :, 0, 0])
    return np.stack(found)


def test_a_known_filter_is_red_where_positive_blue_where_negative_and_white_at_zero():
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 2], weight[0, 0, 2, 1], weight[0, 0, 1, 1] = 0.5, -0.5, 0.25
    image = draw_atlas({"layer": weight}, "One filter")
    (top,) = panels(image)
    (tile,) = tiles(image, top, 3, 3, 46, 1, 8)
    assert tuple(tile[0, 2]) == RED
    assert tuple(tile[2, 1]) == BLUE
    assert tuple(tile[0, 0]) == WHITE
    red, green, blue = tile[1, 1]
    assert red > green > blue > RED[2]


def test_the_scale_is_symmetric_and_its_strength_grows_with_the_weight():
    ramp = torch.linspace(-1, 1, 9)
    weight = torch.stack([ramp, -ramp]).view(2, 1, 1, 9)
    image = draw_atlas({"layer": weight}, "ramp")
    forward, backward = tiles(image, panels(image)[0], 1, 9, 46, 2, 2)
    assert (forward == backward[:, ::-1]).all()
    assert tuple(forward[0, 0]) == BLUE
    assert tuple(forward[0, 4]) == WHITE
    assert tuple(forward[0, 8]) == RED
    assert (np.diff(forward[0, :5, 0]) > 0).all()  # towards white from the left
    assert (np.diff(forward[0, 4:, 1]) < 0).all()  # away from it to the right


def test_filters_are_drawn_in_order_row_by_row_and_layers_in_the_order_of_the_mapping():
    weights = {}
    for layer, (name, start) in enumerate({"b": 0, "a": 3}.items()):
        weights[name] = torch.zeros(100, 1, 7, 7)
        for index in range(100):
            weights[name].view(100, 49)[index, (index + start) % 49] = 1.0 - 2 * layer
    image = draw_atlas(weights, "order")
    tops = panels(image)
    assert len(tops) == 2
    for (layer, start), top in zip(enumerate((0, 3)), tops, strict=True):
        found = tiles(image, top, 7, 7, 5, 100, 32).reshape(100, 49, 3)
        for index, tile in enumerate(found):
            (coloured,) = np.flatnonzero((tile != WHITE).any(axis=1))
            assert coloured == (index + start) % 49
            assert tuple(tile[coloured]) == (RED, BLUE)[layer]
        after_last = image.getpixel((MARGIN + 4 * 36 + 10, top + 3 * 36 + 10))
        assert after_last == PAPER


def test_every_filter_fills_the_scale_and_near_dead_ones_stay_pale(written):
    weight = torch.zeros(4, 1, 3, 3)
    weight[:, 0, 1, 1] = torch.tensor([10.0, 0.2, 1e-6, 0.0])
    image = draw_atlas({"layer": weight}, "strengths")
    found = tiles(image, panels(image)[0], 3, 3, 46, 4, 8)
    assert [tuple(tile[1, 1]) for tile in found] == [RED, RED, WHITE, WHITE]
    assert headings(written) == ["4 filters 3x3   |   0 to 10   |   2 near dead"]
    assert any("Near-dead" in text for text, *_ in written)


def test_the_caption_says_nothing_of_near_dead_filters_where_there_are_none(written):
    draw_atlas({"layer": torch.ones(4, 1, 3, 3)}, "alive")
    text = "\n".join(text for text, *_ in written)
    assert "Each filter is divided by its largest |weight|" in text
    assert "dead" not in text


def test_a_layer_of_zeros_is_white():
    image = draw_atlas({"layer": torch.zeros(2, 1, 3, 3)}, "zeros")
    assert (tiles(image, panels(image)[0], 3, 3, 46, 2, 8) == 255).all()


@pytest.mark.parametrize(("shape", "block", "columns"), [((40, 1, 1, 11), 10, 8), ((40, 1, 11, 1), 10, 96)])
def test_a_flat_kernel_has_tiles_of_the_usual_area(shape, block, columns):
    generator = torch.Generator().manual_seed(0)
    bulk = torch.randn(900, 1, 7, 7, generator=generator)  # keeps the page at its usual scale
    weight = torch.randn(*shape, generator=generator)
    image = draw_atlas({"flat": weight, "bulk": bulk}, "flat kernels")
    found = tiles(image, TOP + HEADING, *shape[2:], block, 40, columns)
    positive = weight.view(40, 11).numpy() > 0
    assert ((found.reshape(40, 11, 3)[..., 0] >= found.reshape(40, 11, 3)[..., 2]) == positive).mean() > 0.97


def test_mixed_kernels_in_one_picture_have_whole_pixel_blocks_and_tiles_of_similar_size():
    blocks = {2: 17, 3: 11, 4: 8, 5: 7, 7: 5, 9: 3, 11: 3}
    generator = torch.Generator().manual_seed(0)
    layers = {f"k{kernel}": torch.randn(33, 1, kernel, kernel, generator=generator) for kernel in blocks}
    image = draw_atlas(layers, "mixed")
    for (kernel, block), top in zip(blocks.items(), panels(image), strict=True):
        columns = 40 if kernel == 9 else 32
        found = tiles(image, top, kernel, kernel, block, 33, columns)
        assert 27 <= kernel * block <= 35
        assert (found != 255).any(axis=(1, 2, 3)).all()


def test_dense_filters_show_every_slice_in_units_of_the_whole_filter(written):
    weight = torch.zeros(2, 3, 3, 3)
    weight[0, 1, 0, 0], weight[0, 2, 2, 2], weight[1, 0, 1, 1] = 4.0, -2.0, -1.0
    image = draw_atlas({"stem": weight}, "dense")
    found = tiles(image, panels(image)[0], 3, 3, 46, 6, 8)
    assert (found[0] == 255).all()
    assert tuple(found[1, 0, 0]) == RED
    assert tuple(found[2, 2, 2]) not in (BLUE, WHITE)  # half as strong as the strongest of its filter
    assert found[2, 2, 2, 0] < found[2, 2, 2, 2]
    assert tuple(found[3, 1, 1]) == BLUE
    assert headings(written) == ["2 filters 3x3, 3 slices each   |   -2 to 4"]


def test_max_filters_shows_the_first_of_each_layer_and_the_heading_says_so(written):
    generator = torch.Generator().manual_seed(0)
    layers = {"long": torch.randn(480, 1, 7, 7, generator=generator), "short": torch.ones(8, 1, 7, 7)}
    image = draw_atlas(layers, "cut", max_filters=64)
    whole = draw_atlas(layers, "cut")
    assert image.height < whole.height
    first, second = headings(written)[:2]
    assert first.startswith("480 filters 7x7, first 64 of 480 shown   |   -")
    assert second == "8 filters 7x7   |   1 to 1"
    assert headings(written)[2].startswith("480 filters 7x7   |   -")
    cut = tiles(image, panels(image)[0], 7, 7, 70 // 7, 64, 16)
    assert (cut == tiles(whole, panels(whole)[0], 7, 7, 5, 64, 32)).all()


def test_what_an_atlas_cannot_show_is_refused():
    for layers, most in (({}, None), ({"layer": torch.ones(1, 1, 3, 3)}, 0)):
        with pytest.raises(MasterkeyError, match="at least one layer and one filter"):
            draw_atlas(layers, "nothing", max_filters=most)


def test_half_precision_gradients_and_strides_do_not_matter():
    weight = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    parameter = torch.nn.Parameter(weight.transpose(2, 3).contiguous().transpose(2, 3))
    expected = draw_atlas({"layer": weight.float()}, "dtype")
    assert draw_atlas({"layer": parameter}, "dtype").tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "name",
    ["", "a" * 3000, "blocks." * 40 + "weight", "new\nline\ttab\x00nul", "名前 \udc80 \u202e عربى", "…"],
)
def test_no_name_breaks_a_heading_or_runs_into_its_facts(written, name):
    image = draw_atlas({name: torch.ones(480, 1, 7, 7), "other": torch.ones(1, 1, 3, 3)}, name)
    facts = next(box for box in written if box[0].startswith("480 filters 7x7"))
    title_end = image.width - MARGIN - 254
    for text, left, top, right, _ in written:
        assert "\n" not in text or text.startswith("Each filter is divided")
        assert right <= image.width - MARGIN + 2
        if abs(top - facts[2]) < 6 and left == MARGIN:
            assert right < facts[1] - 10
        if top < 80 and left <= MARGIN + 4:
            assert right < title_end


def test_a_long_name_keeps_its_ends(written):
    draw_atlas({"stages.0." + "x" * 300 + ".conv_dw.weight": torch.ones(1, 1, 3, 3)}, "names")
    assert any(t.startswith("stages.0.x") and "x…x" in t and t.endswith("x.conv_dw.weight") for t, *_ in written)


def test_no_two_texts_of_an_ordinary_atlas_overlap(written):
    layers = {f"blocks.{i}.conv_dw.weight": torch.zeros(100, 1, k, k) for i, k in enumerate((3, 5, 7, 1))}
    image = draw_atlas(layers, "An ordinary bank")
    for i, (text, left, top, right, bottom) in enumerate(written):
        assert left >= 0
        assert right <= image.width
        for other, a, b, c, d in written[:i]:
            assert right <= a or c <= left or bottom <= b or d <= top, (text, other)
    labels = [text for text, *_ in written if text.isdigit()]
    assert labels[:4] == ["0", "32", "64", "96"]


def test_a_very_large_bank_keeps_every_filter_within_the_page(written):
    generator = torch.Generator().manual_seed(0)
    layer = torch.randn(1000, 1, 7, 7, generator=generator)
    image = draw_atlas({f"layer {i}": layer for i in range(34)}, "34,000 filters")
    assert image.height <= MAX_HEIGHT
    assert len(headings(written)) == 34
    assert not any("shown" in heading for heading in headings(written))
    assert len(tiles(image, TOP + HEADING, 7, 7, 3, 1000, 48)) == 1000


def test_a_bank_that_does_not_fit_is_cut_evenly_then_by_layers(written):
    layer = torch.ones(800, 256, 1, 1)
    image = draw_atlas({"a": layer, "b": layer, "c": torch.ones(10, 1, 3, 3)}, "too large")
    assert MAX_HEIGHT - 40 < image.height <= MAX_HEIGHT
    first, second, third = headings(written)
    assert first == second
    assert "of 204,800 shown" in first
    assert "shown" not in third
    labels = [top for text, _, top, *_ in written if text.isdigit() and top > TOP]
    assert min(np.diff(labels)) >= 12  # although rows are 8 pixels high
    written.clear()
    small = torch.ones(8, 1, 3, 3)
    image = draw_atlas({f"layer {i}": small for i in range(500)}, "too many")
    assert image.height <= MAX_HEIGHT
    shown = len(headings(written))
    assert 200 < shown < 500
    assert f"4,000 filters in 500 layers, first {shown} layers shown" in [text for text, *_ in written]


def test_the_colour_bar_shows_the_limits(written):
    image = draw_atlas({"layer": torch.ones(1, 1, 3, 3)}, "bar")
    right = image.width - MARGIN
    assert image.getpixel((right - 255, 60)) == BLUE
    assert image.getpixel((right - 128, 60)) == WHITE
    assert image.getpixel((right - 1, 60)) == RED
    assert {"-1", "0", "+1"} <= {text for text, *_ in written}


def test_every_letter_of_our_own_texts_has_a_glyph():
    font = ImageFont.load_default(16)
    missing = bytes(font.getmask("\ue000"))
    texts = atlas.SHAPE + atlas.PALE + "weight / largest |weight| of its filter-+0123456789,.x…?eE"
    assert not [letter for letter in texts if bytes(font.getmask(letter)) == missing]
    assert INK != PAPER


def test_saving_gives_the_same_bytes_every_time_and_a_png_that_holds_the_picture(tmp_path):
    def layers():
        return {"layer": torch.randn(20, 1, 7, 7, generator=torch.Generator().manual_seed(3))}

    image = draw_atlas(layers(), "twice")
    save_atlas(image, tmp_path / "new" / "one.png")
    save_atlas(draw_atlas(layers(), "twice"), tmp_path / "two.png")
    first = (tmp_path / "new" / "one.png").read_bytes()
    assert first == (tmp_path / "two.png").read_bytes()
    with Image.open(io.BytesIO(first)) as loaded:
        assert loaded.format == "PNG"
        assert loaded.tobytes() == image.tobytes()


def test_a_place_that_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path):
    image = draw_atlas({"layer": torch.ones(1, 1, 3, 3)}, "nowhere")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SaveError, match=r"file.*atlas\.png"):
        save_atlas(image, tmp_path / "file" / "atlas.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SaveError, match=r"folder\.png"):
        save_atlas(image, tmp_path / "folder.png")
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]
