import math
from pathlib import Path

import pytest
import torch
import yaml

from s2sr.errors import InputError
from s2sr.model.psf import DETECTOR_WIDTH, MTF_AT_NYQUIST, PSF, detail_limit, detector_widths, sigma_from_mtf, transfer

CONF = Path(__file__).resolve().parents[2] / "conf" / "psf"


def test_the_published_widths_are_those_of_the_published_mtf():
    table = yaml.safe_load((CONF / "sentinel2.yaml").read_text())["sigma"]
    assert table == {band: pytest.approx(sigma_from_mtf(mtf), abs=5.01e-4) for band, mtf in MTF_AT_NYQUIST.items()}


@pytest.mark.parametrize("band", MTF_AT_NYQUIST)
def test_detector_and_gaussian_together_have_the_published_mtf_at_nyquist(band):
    """Nyquist of a band's own grid is half a cycle per its own pixel, so a quarter per LR pixel for 20 m bands."""
    width, sigma = DETECTOR_WIDTH[band], sigma_from_mtf(MTF_AT_NYQUIST[band])
    nyquist = torch.tensor(0.5 / width, dtype=torch.float64)
    assert float(transfer(nyquist, sigma * width, width)) == pytest.approx(MTF_AT_NYQUIST[band], rel=1e-12)


def test_the_transfer_function_is_the_footprints_fourier_transform():
    from s2sr.model.footprint import pixel_integral

    u = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    for f in torch.tensor([0.0, 0.1, 0.4, 0.73], dtype=torch.float64):
        for sigma, width in ((0.4, 1), (0.9, 2)):
            wave = torch.cos(2 * math.pi * f * u)
            expected = float(torch.trapezoid(pixel_integral(u, width, sigma) * wave, u))
            assert float(transfer(f, sigma, width)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("sigma", "width"), [(0.3, 1), (0.45, 1), (0.8, 2)])
def test_the_finest_detail_is_what_the_footprint_just_passes(sigma, width):
    limit = detail_limit(sigma, width)
    assert float(transfer(torch.tensor(1 / (2 * limit)), sigma, width)) == pytest.approx(0.05, abs=1e-4)
    assert limit > width / 2


def test_detector_widths_are_those_of_the_bands():
    assert detector_widths(("B02", "B8A", "B01", "pan")).tolist() == [1, 2, 6, 1]


def test_one_sigma_for_all_bands_or_one_per_band():
    torch.testing.assert_close(PSF(0.4).of(("B02", "B11")), torch.tensor([0.4, 0.4]))
    torch.testing.assert_close(PSF({"B11": 0.5, "B02": 0.3}).of(("B02", "B11")), torch.tensor([0.3, 0.5]))


@pytest.mark.parametrize("sigma", [0, -0.4, 4.1, math.nan, math.inf, "wide", None])
def test_a_sigma_that_is_not_a_positive_number_raises(sigma):
    said = f"psf.sigma must be a positive number up to 2 pixels of the band's own grid, not {sigma}"
    with pytest.raises(InputError, match=f"^{said}$"):
        PSF(sigma)
    with pytest.raises(InputError, match=rf"^{said} \(band B03\)$"):
        PSF({"B02": 0.4, "B03": sigma})


def test_a_band_without_a_sigma_raises():
    with pytest.raises(InputError, match=r"psf\.sigma has no value for B03, B11; it has B02, B04"):
        PSF({"B02": 0.3, "B04": 0.4}).of(("B02", "B03", "B11"))
