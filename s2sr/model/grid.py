"""Where pixels lie on the ground.

Rows grow downwards. The transform maps (column, row), from the outer corner of pixel (0, 0), to map coordinates:
x = a * column + b * row + c and y = d * column + e * row + f.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from s2sr.errors import InputError

Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Grid:
    crs: str | None  # anything that PROJ reads: WKT or an authority code; None: unknown
    transform: Transform  # a, b, c, d, e, f in map units per pixel
    shape: tuple[int, int]  # rows, columns

    @property
    def matrix(self) -> np.ndarray:
        """The transform as a 3 x 3 matrix on (column, row, 1)."""
        return np.array([self.transform[:3], self.transform[3:], (0, 0, 1)], dtype=float)

    def centre(self, side: int) -> tuple[slice, slice]:
        """Rows and columns of the central square, taken at the floor of the centre.

        Raises InputError if the grid is smaller.
        """
        height, width = self.shape
        if side < 1 or side > min(height, width):
            raise InputError(f"crop={side} does not fit the scene of {height} x {width} pixels")
        row, column = (height - side) // 2, (width - side) // 2
        return slice(row, row + side), slice(column, column + side)

    def crop(self, row: int, column: int, shape: tuple[int, int]) -> Grid:
        """The window of `shape` (rows, columns) whose first pixel is (row, column)."""
        a, b, c, d, e, f = self.transform
        origin = (a * column + b * row + c, d * column + e * row + f)
        return replace(self, transform=(a, b, origin[0], d, e, origin[1]), shape=shape)

    def scaled(self, scale: int) -> Grid:
        """The same footprint in pixels that are `scale` times smaller per axis."""
        a, b, c, d, e, f = self.transform
        return replace(
            self,
            transform=(a / scale, b / scale, c, d / scale, e / scale, f),
            shape=(self.shape[0] * scale, self.shape[1] * scale),
        )

    def axes_of(self, other: Grid) -> tuple[tuple[float, float], tuple[float, float]]:
        """`other` in the pixel coordinates of this grid: (start, pitch) along rows and along columns.

        Raises ValueError if the grids differ in CRS or are rotated against each other.
        """
        if other.crs != self.crs:
            raise ValueError(f"the grids have different CRS: {other.crs} and {self.crs}")
        relative = np.linalg.inv(self.matrix) @ other.matrix
        pitch = abs(relative[[0, 1], [0, 1]])
        if (abs(relative[[0, 1], [1, 0]]) > 1e-6 * pitch.max()).any():
            raise ValueError(f"the grids are rotated against each other: {other.transform} and {self.transform}")
        return (relative[1, 2], relative[1, 1]), (relative[0, 2], relative[0, 0])
