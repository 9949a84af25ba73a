"""The sharp aerial images that scenes are drawn from: USDA NAIP, public domain.

DATA, where benchmarks ask for it, is the folder that holds hr_naip_va and hr_naip_northdakota_5m.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
IMAGES = {  # by name; a file of four bands, or one for each
    "nd": "hr_naip_northdakota_5m/m_4709963_se_14_1_20160816.tif",  # 5 m: what methods are tuned on
    "va": "hr_naip_va/NAIP-VA-b{}.tiff",  # 1 m, as the forests
    "sw": "hr_naip_va/m_3607717_sw_18_1_20160620_subset.tif",
    "se": "hr_naip_va/m_3607824_se_17_1_20160620_subset.tif",
}
BANDS = ("B02", "B03", "B04", "B08")


def sharp(folder: Path, image: str) -> np.ndarray:
    """[b, y, x] reflectance of `BANDS`. Ends the program if the folder does not hold it."""
    import rasterio

    bands = []
    for k in (3, 2, 1, 4):  # they are stored as red, green, blue, near infrared
        path = folder / IMAGES[image].format(k)
        if not path.exists():
            raise SystemExit(f"{path} is not there; name the folder that has it")
        with rasterio.open(path) as file:
            bands.append(file.read(k if file.count > 1 else 1))
    return np.stack(bands).astype(np.float32) / 255 * 0.4
