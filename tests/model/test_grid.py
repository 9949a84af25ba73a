import numpy as np
import pytest

from s2sr.model.grid import Grid

GRID = Grid("EPSG:32631", (10, 0, 500_000, 0, -10, 5_600_000), (61, 113))


def corner(grid: Grid, row: float, column: float) -> tuple[float, float]:
    x, y, _ = grid.matrix @ (column, row, 1)
    return x, y


def test_a_crop_keeps_its_pixels_on_the_ground():
    window = GRID.crop(7, 11, (5, 3))
    assert window.shape == (5, 3)
    assert corner(window, 0, 0) == corner(GRID, 7, 11) == (500_110, 5_599_930)
    assert corner(window, 5, 3) == corner(GRID, 12, 14)


@pytest.mark.parametrize("scale", [1, 3, 8])
def test_a_scaled_grid_covers_the_same_ground(scale):
    fine = GRID.scaled(scale)
    assert fine.shape == (61 * scale, 113 * scale)
    np.testing.assert_allclose(corner(fine, *fine.shape), corner(GRID, *GRID.shape), rtol=1e-12)


def test_axes_of_a_crop_in_finer_pixels():
    (row, down), (column, across) = GRID.axes_of(GRID.crop(7, 11, (5, 3)).scaled(4))
    np.testing.assert_allclose((row, down, column, across), (7, 0.25, 11, 0.25), rtol=1e-9)


def test_axes_of_a_grid_with_its_rows_upwards():
    mirrored = Grid(GRID.crs, (10, 0, 500_000, 0, 10, 5_600_000 - 610), GRID.shape)
    (row, down), (column, across) = GRID.axes_of(mirrored)
    np.testing.assert_allclose((row, down, column, across), (61, -1, 0, 1), atol=1e-9)


def test_rotated_grids_agree_with_each_other_only():
    turned = Grid(GRID.crs, (8, 6, 500_000, 6, -8, 5_600_000), (20, 30))
    (row, down), (column, across) = turned.axes_of(turned.crop(2, 3, (5, 5)).scaled(2))
    np.testing.assert_allclose((row, down, column, across), (2, 0.5, 3, 0.5), atol=1e-9)
    sheared = Grid(GRID.crs, (10, 2, 500_000, 0, -10, 5_600_000), (20, 30))
    for other in (turned, sheared):
        with pytest.raises(ValueError, match="rotated against each other"):
            GRID.axes_of(other)


@pytest.mark.parametrize("crs", [None, "EPSG:3035"])
def test_another_crs_raises(crs):
    with pytest.raises(ValueError, match=rf"different CRS: {crs} and EPSG:32631"):
        GRID.axes_of(Grid(crs, GRID.transform, GRID.shape))
