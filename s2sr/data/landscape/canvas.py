"""The raster on which the landscape is painted: antialiased colours, smooth noise, and room for what stands on it.

Positions are (y, x) in metres from the outer corner of the first pixel.
"""

from __future__ import annotations

import numpy as np

from s2sr.data.landscape.materials import Material, spectrum

Window = tuple[slice, slice]
EVERYWHERE: Window = (slice(None), slice(None))


class Canvas:
    """An image [4, y, x], the material of each pixel, and a mask of where nothing more is built or planted."""

    def __init__(
        self,
        shape: tuple[int, int],  # pixels
        *,
        pixel: float,  # metres
        rng: np.random.Generator,
    ) -> None:
        self.shape = shape
        self.pixel = pixel
        self.extent = np.array(shape) * pixel
        y, x = ((np.arange(n, dtype=np.float32) + 0.5) * np.float32(pixel) for n in shape)
        self.y, self.x = y[:, None], x[None, :]
        self.image = np.zeros((4, *shape), np.float32)
        self.material = np.full(shape, Material.FIELD, np.uint8)
        self.taken = np.zeros(shape, bool)
        self.texture = self.noise(1.3, rng)  # one for all surfaces: roughness of a lawn, lumps of a crown

    def noise(self, wavelength: float, rng: np.random.Generator) -> np.ndarray:
        """[y, x] smooth noise of unit variance: Gaussians at nodes `wavelength` metres apart."""

        def spread(positions: np.ndarray, length: float) -> np.ndarray:
            nodes = np.arange(-3, length / wavelength + 4, dtype=np.float32)
            weights = np.exp(-(((positions / wavelength - nodes) / 0.6) ** 2) / 2)
            return weights / np.sqrt((weights**2).sum(1, keepdims=True))

        down, across = spread(self.y, self.extent[0]), spread(self.x.T, self.extent[1])
        nodes = rng.standard_normal((down.shape[1], across.shape[1])).astype(np.float32)
        return (down @ nodes @ across.T).astype(np.float32)

    def pixel_at(self, position: np.ndarray) -> tuple[int, int]:
        """The row and column of the pixel nearest to a position."""
        y, x = np.clip(position // self.pixel, 0, np.array(self.shape) - 1).astype(int)
        return y, x

    def relative_to(self, position: np.ndarray, where: Window = EVERYWHERE) -> tuple[np.ndarray, np.ndarray]:
        """([y, 1], [1, x]) the distances from a position to the pixels, in metres."""
        return self.y[where[0]] - np.float32(position[0]), self.x[:, where[1]] - np.float32(position[1])

    def window(self, position: np.ndarray, reach: float | np.ndarray) -> tuple[Window, np.ndarray, np.ndarray]:
        """The part within `reach` of a position, and the distances from there to its pixels, in metres."""
        low = np.maximum((position - reach) / self.pixel, 0).astype(int)
        high = np.maximum(np.ceil((position + reach) / self.pixel), 0).astype(int)
        where = slice(low[0], high[0]), slice(low[1], high[1])
        return where, *self.relative_to(position, where)

    def inside(self, depth: np.ndarray) -> np.ndarray:
        """Antialiased membership, 0 to 1, of a region whose outline is `depth` metres away (positive inside)."""
        return np.clip(0.5 + depth / np.float32(self.pixel), 0, 1)

    def paint(
        self,
        alpha: np.ndarray,  # [y, x] opacity
        colour: str | np.ndarray,  # name or [4, y, x]
        material: Material | None = None,  # None: as it was
        *,
        light: float | np.ndarray = 1.0,  # factor on the colour
        where: Window = EVERYWHERE,
    ) -> None:
        """Lay a colour over the image; pixels that are mostly covered become `material`."""
        if isinstance(colour, str):
            colour = spectrum(colour)
        patch = self.image[:, *where]
        patch += alpha * (colour * light - patch)
        if material is not None:
            self.material[where][alpha > 0.5] = material

    def is_free(self, position: np.ndarray, reach: float) -> bool:
        """Whether a disc lies on the canvas and nothing has been built in it."""
        if (position < reach).any() or (position > self.extent - reach).any():
            return False
        where, y, x = self.window(position, reach)
        return not (self.taken[where] & (np.hypot(y, x) < reach)).any()


def along_and_across(direction: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates of points along a unit direction and to its side."""
    a, b = direction.astype(np.float32)
    return y * a + x * b, y * b - x * a
