from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from matplotlib.figure import Figure
from PIL import Image
from rasterio.transform import Affine
from scipy import ndimage

from s2sr.data.demo import Demo
from s2sr.model.grid import Grid
from s2sr.model.scene import Observation, Scene, Truth
from s2sr.report.comparison import aerial, comparison
from s2sr.report.figures import Stretch, _scale_bar, rgb, save


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


@pytest.mark.parametrize(
    ("metre", "label", "length"), [(0.15, "1 km", 150), (0.4, "500 m", 200), (0.41, "200 m", 82), (4.0, "50 m", 200)]
)
def test_the_scale_bar_is_the_longest_round_one_within_a_third_of_the_picture(metre, label, length):
    axes = Figure().add_axes((0, 0, 1, 1))
    _scale_bar(axes, metre, 600, 400)
    low, high = axes.lines[0].get_xdata()
    assert (axes.texts[0].get_text(), high - low) == (label, pytest.approx(length))


def test_comparison_of_one_band_without_a_crs(tmp_path):
    scene = make_scene(20, 20, bands=("B08",))
    save(comparison(scene, torch.rand(1, 40, 40), 2), tmp_path / "comparison.png")
    assert pixels(tmp_path / "comparison.png").shape[1] >= 1600


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
