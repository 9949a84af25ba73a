"""Multi-frame super-resolution of Sentinel-2 by an exact model and optimisation.

import s2sr

scene = s2sr.load_scene("FOLDER", bands=["B02", "B03", "B04"])
field = s2sr.super_resolve(scene, "strategy=lbfgs", "psf=sentinel2")
image = field.render(scene.grid.scaled(4))
s2sr.write_geotiff("sr.tif", image, scene.grid.scaled(4), scene.bands)
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

_HOME = {
    "Demo": "s2sr.data.demo",
    "InputError": "s2sr.errors",
    "Scene": "s2sr.model.scene",
    "configuration": "s2sr.observations",
    "super_resolve": "s2sr.experiment",
    "load_scene": "s2sr.experiment",
    "write_geotiff": "s2sr.report.products",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import on first use: torch and Lightning take seconds, and not every command needs them."""
    if name == "__version__":
        return version("s2sr")
    if name not in _HOME:
        raise AttributeError(f"module s2sr has no attribute {name}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
