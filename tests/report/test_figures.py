import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import Affine
from scipy import ndimage

from s2sr.data.demo import Demo
from s2sr.model.grid import Grid
from s2sr.model.scene import Observation, Scene, Truth
from s2sr.report.figures import (
    GAP,
    MASKED,
    Panel,
    Stretch,
    _label_places,
    aerial,
    channels,
    comparison,
    detail_window,
    fit,
    metres_per_pixel,
    residual_map,
    rgb,
    save,
    sheet,
    shift_plot,
    write_png,
)


def pixels(path):
    return np.asarray(Image.open(path))


def make_scene(height=24, width=30, *, truth=True, bands=("B02", "B03", "B04")):
    rng = np.random.default_rng(0)
    fine = ndimage.gaussian_filter(rng.normal(size=(len(bands), height * 8, width * 8)), (0, 4, 4)) + 0.2
    frames = torch.tensor(fine.reshape(len(bands), height, 8, width, 8).mean((2, 4)), dtype=torch.float32)
    frames = frames + 0.001 * torch.randn(3, *frames.shape, generator=torch.Generator().manual_seed(0))
    known = Truth(torch.tensor(fine, dtype=torch.float32), 8, torch.zeros(3, 2), torch.full((len(bands),), 0.4))
    observations = tuple(Observation(f"S2_{t}", f"2023-06-{t + 1:02d}T10:00:00Z", 1.0) for t in range(3))
    grid = Grid("EPSG:32633", (10.0, 0.0, 499980.0, 0.0, -10.0, 4200000.0), (height, width))
    valid = torch.ones_like(frames, dtype=torch.bool)
    return Scene(frames, valid, grid, bands, observations, truth=known if truth else None)


def test_channels_are_natural_colours_where_there_are_any():
    assert channels(("B02", "B03", "B04", "B08")) == [2, 1, 0]
    assert channels(("B08", "B04", "B11", "B03")) == [0, 1, 2]
    assert channels(("B04", "B08")) == [0]


def test_rgb_stretches_each_channel_between_its_percentiles():
    image = np.linspace(0.0, 1.0, 101 * 100).reshape(101, 100)[None] * np.array([1.0, 2.0, 4.0])[:, None, None]
    stretch = Stretch.of(image, ("B02", "B03", "B04"), percentiles=(1, 99))
    assert stretch.low == pytest.approx((0.04, 0.02, 0.01), rel=1e-2)
    assert stretch.high == pytest.approx((3.96, 1.98, 0.99), rel=1e-2)
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


def test_fit_repeats_pixels_or_averages_them():
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8), rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    a, size_a = fit(low, 1, 4, (2, 3, 5, 5), 100)
    b, size_b = fit(high, 4, 4, (2, 3, 5, 5), 100)
    assert (a.shape, size_a, size_b) == ((100, 100, 3), 20, 20)
    assert b.shape == a.shape
    np.testing.assert_array_equal(a[::20, ::20], low[2:7, 3:8])
    np.testing.assert_array_equal(b[::5, ::5], high[8:28, 12:32])
    c, size_c = fit(high, 4, 4, (0, 0, 10, 12), 12)
    assert (c.shape, size_c) == ((10, 12, 3), 1)
    np.testing.assert_allclose(c, high.reshape(10, 4, 12, 4, 3).mean((1, 3)), atol=0.5 + 1e-9)


def test_detail_window_finds_the_detail():
    image = np.full((2, 40, 50), 0.1)
    image[:, 20:30, 30:40] += 0.1 * (np.indices((10, 10)).sum(0) // 2 % 2)
    image[:, 5, 5] = 3.0  # one bright roof
    row, column, *_ = detail_window(image, 14)
    assert 15 <= row <= 21
    assert 25 <= column <= 31


def test_metres_per_pixel():
    transform = (10.0, 0.0, 0.0, 0.0, -10.0, 0.0)
    assert metres_per_pixel(Grid("EPSG:32633", transform, (2, 2))) == 10
    assert metres_per_pixel(Grid("EPSG:2263", transform, (2, 2))) == pytest.approx(3.048, rel=1e-4)  # US survey feet
    assert metres_per_pixel(Grid("EPSG:4326", transform, (2, 2))) is None
    assert metres_per_pixel(Grid(None, transform, (2, 2))) is None


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(24, 30, 4), (61, 113, 8), (70, 20, 2), (6, 6, 3), (100, 100, 8)]
)
@pytest.mark.parametrize("truth", [True, False])
def test_comparison_is_large_enough_for_any_scene(tmp_path, height, width, scale, truth):
    scene = make_scene(height, width, truth=truth)
    product = torch.rand(3, height * scale, width * scale)
    figure = comparison(scene, product, scale, metrics={"psnr": 24.5, "edge_contrast": None})
    save(figure, tmp_path / "comparison.png")
    drawn = pixels(tmp_path / "comparison.png")
    assert len(figure.axes) == (8 if truth else 6)
    if height <= width:
        assert drawn.shape[1] >= 1600
    assert max(drawn.shape) < 2600
    texts = [text.get_text() for text in figure.texts]
    assert "PSNR 24.50" in texts
    assert ("Truth" in texts) == truth


def test_comparison_shows_the_observation_the_baseline_and_the_product_with_one_stretch():
    scene = make_scene(24, 24, truth=False)
    product = torch.rand(3, 96, 96)
    stretch = Stretch((0.0,) * 3, (1.0,) * 3)
    panels = comparison(scene, product, 4, stretch=stretch).axes
    drawn = np.asarray(panels[2].images[0].get_array())
    zoom = drawn.shape[0] // 96
    np.testing.assert_array_equal(drawn[::zoom, ::zoom], rgb(product, scene.bands, stretch))
    observed = np.asarray(panels[0].images[0].get_array())[:: 4 * zoom, :: 4 * zoom]
    assert any(np.array_equal(observed, rgb(frame, scene.bands, stretch)) for frame in scene.frames)


def test_comparison_of_one_band_without_a_crs(tmp_path):
    scene = make_scene(20, 20, bands=("B08",))
    save(comparison(scene, torch.rand(1, 40, 40), 2), tmp_path / "comparison.png")
    assert pixels(tmp_path / "comparison.png").shape[1] >= 1600


@pytest.mark.parametrize("count", [1, 2, 8, 30, 60])
def test_shift_plot_names_every_observation(tmp_path, count):
    shifts = np.random.default_rng(0).normal(0, 0.1, (count, 2))
    dates = [f"2023-{1 + t // 28:02d}-{1 + t % 28:02d}T10:00:00Z" for t in range(count)]
    figure = shift_plot(torch.tensor(shifts), dates, shifts + 0.01)
    assert {date[:10] for date in dates} <= {text.get_text() for text in figure.texts}
    low, high = figure.axes[0].get_xlim()
    assert low < -0.5
    assert high > 0.5
    save(figure, tmp_path / "shifts.png")
    assert pixels(tmp_path / "shifts.png").shape[0] == 840


def test_labels_of_shifts_do_not_overlap():
    points = np.random.default_rng(0).normal(0, 60, (30, 2))
    labels = points + _label_places(points)
    assert min(math.dist(a, b) for a, b in itertools.combinations(labels, 2)) > 15
    assert min(math.dist(a, b) for a, b in itertools.product(labels, points)) > 12


def test_residual_map_is_centred_on_zero(tmp_path):
    residual = np.random.default_rng(0).normal(0, 1, (3, 20, 30)) + 0.3
    residual[:, 4, 5] = np.nan
    figure = residual_map(residual)
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high
    save(figure, tmp_path / "residual.png")
    assert pixels(tmp_path / "residual.png").shape[1] > 600
    save(residual_map(np.zeros((4, 4))), tmp_path / "zero.png")


def test_a_basemap_is_shown_where_the_scene_is(tmp_path):
    scene = Demo(size=32, n_dates=3, cloudy=0).load()
    fine = scene.grid.scaled(4)
    picture = np.random.default_rng(0).integers(1, 255, (3, *fine.shape)).astype(np.uint8)
    place = {"height": fine.shape[0], "width": fine.shape[1], "crs": fine.crs, "transform": Affine(*fine.transform)}
    with rasterio.open(tmp_path / "basemap.tif", "w", driver="GTiff", count=3, dtype="uint8", **place) as out:
        out.write(picture)
        out.update_tags(attribution="somebody")
    scene = replace(scene, basemap=tmp_path / "basemap.tif").crop(16)
    shown, credit = aerial(scene, 4)
    np.testing.assert_array_equal(shown, np.moveaxis(picture[:, 32:96, 32:96], 0, -1))
    assert credit == "Aerial picture: somebody"
    (tmp_path / "basemap.tif").write_text("<html>")
    assert aerial(scene, 4) == (None, "")
