import math

import numpy as np
import pytest
import torch
from PIL import Image

from s2sr.report.figures import (
    GAP,
    MASKED,
    Panel,
    Stretch,
    channels,
    detail_window,
    rgb,
    save,
    sheet,
    sized,
    write_png,
)


def pixels(path):
    return np.asarray(Image.open(path))


def test_channels_are_natural_colours_where_there_are_any():
    assert channels(("B02", "B03", "B04", "B08")) == [2, 1, 0]
    assert channels(("B08", "B04", "B11", "B03")) == [0, 1, 2]
    assert channels(("B04", "B08")) == [0]


def test_rgb_stretches_each_channel_between_its_percentiles():
    image = np.linspace(0.0, 1.0, 101 * 100).reshape(101, 100)[None] * np.array([1.0, 2.0, 4.0])[:, None, None]
    stretch = Stretch.of(image, ("B02", "B03", "B04"))
    assert stretch.low == pytest.approx((0.02, 0.01, 0.005), rel=1e-2)
    assert stretch.high == pytest.approx((3.98, 1.99, 0.995), rel=1e-3)
    picture = rgb(image, ("B02", "B03", "B04"), stretch)
    assert picture.shape == (101, 100, 3)
    assert picture.dtype == np.uint8
    assert (picture.min(), picture.max()) == (0, 255)
    assert abs(int(picture[50, 50, 0]) - 127) <= 1


def test_rgb_of_one_band_is_grey_and_marks_missing_data():
    image = torch.rand(1, 8, 9)
    image[0, 2, 3] = math.nan
    picture = rgb(image, ("B08",))
    assert picture.shape == (8, 9)
    assert picture[2, 3] == MASKED
    assert (rgb(torch.full((3, 4, 4), math.nan), ("B02", "B03", "B04")) == MASKED).all()


def test_png_has_exactly_the_pixels(tmp_path):
    for shape in ((13, 17, 3), (13, 17)):
        picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        write_png(tmp_path / "sr.png", picture)
        np.testing.assert_array_equal(pixels(tmp_path / "sr.png"), picture)


def test_sheet_draws_every_pixel_as_it_is(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((200, 301, 3), (199, 300, 3), (200, 297))]
    save(sheet([[Panel(p) for p in pictures], [Panel(pictures[1])]]), tmp_path / "sheet.png")
    drawn = pixels(tmp_path / "sheet.png")[..., :3]
    for k, picture in enumerate(pictures):
        left = GAP + k * (301 + GAP)
        part = drawn[GAP : GAP + picture.shape[0], left : left + picture.shape[1]]
        np.testing.assert_array_equal(part, picture if picture.ndim == 3 else picture[..., None].repeat(3, -1))
    np.testing.assert_array_equal(drawn[200 + 2 * GAP :][:199, GAP : GAP + 300], pictures[1])


def test_a_sized_picture_repeats_pixels_or_averages_them():
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8), rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    a, size_a = sized(low, 1, 4, (2, 3, 5, 5), 100)
    b, size_b = sized(high, 4, 4, (2, 3, 5, 5), 100)
    assert (a.shape, size_a, size_b) == ((100, 100, 3), 20, 20)
    assert b.shape == a.shape
    np.testing.assert_array_equal(a[::20, ::20], low[2:7, 3:8])
    np.testing.assert_array_equal(b[::5, ::5], high[8:28, 12:32])
    c, size_c = sized(high, 4, 4, (0, 0, 10, 12), 12)
    assert (c.shape, size_c) == ((10, 12, 3), 1)
    np.testing.assert_allclose(c, high.reshape(10, 4, 12, 4, 3).mean((1, 3)), atol=0.5 + 1e-9)


def test_detail_window_finds_the_detail():
    image = np.full((2, 40, 50), 0.1)
    image[:, 20:30, 30:40] += 0.1 * (np.indices((10, 10)).sum(0) // 2 % 2)
    image[:, 5, 5] = 3.0  # one bright roof
    row, column, *_ = detail_window(image, 14)
    assert 15 <= row <= 21
    assert 25 <= column <= 31
