import math

import numpy as np
import pytest
import rasterio
import torch
from scipy.special import erf

from s2sr.model.grid import Grid
from s2sr.model.scene import Observation, Scene, Truth
from s2sr.report.figures import Stretch, save
from s2sr.report.intervals import coverage, numbers, picture, seen, write
from s2sr.report.products import Product

SIDE, SCALE = 24, 2
GRID = Grid("EPSG:32633", (10.0, 0.0, 499980.0, 0.0, -10.0, 4200000.0), (SIDE, SIDE))


def scene(reflectance: np.ndarray | None = None, shifts: float = 0.0) -> Scene:
    valid = torch.ones(3, 2, SIDE, SIDE, dtype=torch.bool)
    truth = None
    if reflectance is not None:
        truth = Truth(torch.from_numpy(reflectance), 8, torch.full((3, 2), shifts), torch.full((2,), 0.4))
    observations = tuple(Observation(f"S2_{t}", f"2023-06-{t + 10}", 1.0) for t in range(3))
    return Scene(torch.zeros(valid.shape), valid, GRID, ("B02", "B11"), observations, truth=truth)


def test_normal_errors_are_covered_as_they_should_be():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 130, 130))
    std = np.exp(rng.normal(size=image.shape))
    found = coverage(image, std, image + std * rng.normal(size=image.shape), 2)
    assert len(found) == 10
    for key, value in found.items():
        assert value == pytest.approx(0.683 if "68" in key else 0.95, abs=0.02), key


def test_quarters_are_of_the_products_contrast():
    """Errors are too large for their intervals where the image is rough; the border does not count."""
    rng = np.random.default_rng(0)
    image = np.zeros((1, 140, 140))
    image[:, :, 70:] = rng.normal(size=(1, 140, 70))
    truth = image + np.where(np.arange(140) < 70, 0.5, 3.0)
    truth[:, :12] = 99
    found = coverage(image, np.ones_like(image), truth, 2)
    assert found["coverage_68"] == pytest.approx(0.5, abs=0.02)
    assert found["coverage_68_q1"] == found["coverage_95_q1"] == 1
    assert found["coverage_68_q4"] == found["coverage_95_q4"] == 0


def test_what_has_no_inside_has_no_coverage():
    small = np.ones((1, 16, 16))
    assert all(math.isnan(value) for value in coverage(small, small, small, 2).values())


def test_the_truth_is_seen_at_the_products_resolution_and_place():
    """An edge at column 12 is blurred by the splat, averaged over pixels of 1/4, and moved by the product's shifts."""
    edge = np.zeros((2, SIDE * 8, SIDE * 8), np.float32)
    edge[..., SIDE * 4 :] = 1
    found = seen(scene(edge, shifts=0.5), scale=4, splat=0.3, shifts=torch.zeros(3, 2))[0, 40]
    x = (np.arange(SIDE * 4)[:, None] + (np.arange(40) + 0.5) / 40) / 4 - 12.5
    np.testing.assert_allclose(found, (1 + erf(x / math.sqrt(2) / 0.3)).mean(1) / 2, atol=2e-4, rtol=0)


@pytest.mark.parametrize("alike", [True, False])
def test_the_files_lie_on_the_products_grid_and_say_what_they_are(tmp_path, alike):
    image = torch.rand(2, SIDE * SCALE, SIDE * SCALE)
    deviation, count = 0.01 + 0.01 * image, torch.full(image.shape, 3, dtype=torch.uint8)
    count[0 if not alike else slice(None), :5] = 1
    product = Product(image, deviation, count, scale=SCALE, splat=0.3)
    write(tmp_path, scene(), product, tags={"s2sr_version": "0"})
    assert numbers(scene(), product, torch.zeros(3, 2)) == {"std_mean": pytest.approx(float(deviation.mean()))}
    with rasterio.open(tmp_path / "sr_std.tif") as std, rasterio.open(tmp_path / "sr_count.tif") as number:
        for file in (std, number):
            assert tuple(file.transform)[:6] == GRID.scaled(SCALE).transform
            assert file.crs == rasterio.CRS.from_epsg(32633)
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.tags()["s2sr_version"] == "0"
        np.testing.assert_array_equal(std.read(), deviation.numpy())
        assert std.descriptions == ("B02", "B11")
        assert "Gaussian of 0.3 pixels" in std.tags()["resolution"]
        assert "minus the truth" in std.tags()["quantity"]
        assert set(number.dtypes) == {"uint8"}
        assert number.nodata is None
        assert number.descriptions == (("count",) if alike else ("B02", "B11"))
        np.testing.assert_array_equal(number.read(), count[:1].numpy() if alike else count.numpy())
    bands = ("B02", "B11")
    save(picture(product, bands, stretch=Stretch.of(image, bands), most=3), tmp_path / "uncertainty.png")
    assert (tmp_path / "uncertainty.png").stat().st_size > 1000
