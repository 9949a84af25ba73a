import math

import pytest

from s2sr.report.glossary import BASELINES, GROUPS, METRICS, parse, rows


def test_every_metric_has_a_group_and_says_what_it_means():
    for key, metric in METRICS.items():
        assert metric.group in GROUPS, key
        assert metric.sentence.endswith("."), key
    order = list(dict.fromkeys(metric.group for metric in METRICS.values()))
    assert order == [group for group in GROUPS if group in order], "each group in one piece, in the order of GROUPS"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("psnr", ("psnr", "", "", False)),
        ("holdout_rmse_temporal_mean", ("holdout_rmse", "temporal_mean", "", False)),
        ("holdout_rmse_B02", ("holdout_rmse", "", "B02", False)),
        ("holdout_rmse_wiener_B8A", ("holdout_rmse", "wiener", "B8A", False)),
        ("psf_sigma_B02_std", ("psf_sigma", "", "B02", True)),
        ("psf_sigma_B11", None),  # not a band of this product
        ("psnr_of_the_moon", None),
    ],
)
def test_a_key_is_a_metric_a_baseline_a_band(name, parts):
    assert parse(name, ("B02", "B8A")) == parts


def test_a_row_has_the_product_the_baselines_and_the_bands():
    metrics = {"status": "ok", "psf_sigma_B02": 0.4, "psf_sigma_B02_std": 0.01, "psf_sigma": 0.41, "unheard_of": 1}
    metrics |= {f"psnr_{name}": k for k, name in enumerate(BASELINES)} | {"psnr": 24.0, "ssim": None}
    psnr, sigma = rows(metrics, ("B02",))
    assert (psnr.key, psnr.values) == ("psnr", {"": 24.0} | {name: k for k, name in enumerate(BASELINES)})
    assert (sigma.values, sigma.by_band, sigma.errors) == ({"": 0.41}, {"": {"B02": 0.4}}, {"B02": 0.01})


def test_values_are_shown_with_the_digits_that_they_are_worth():
    assert METRICS["psnr"].text(24.1261) == "24.13"
    assert METRICS["holdout_rmse"].text(0.01234567) == "0.01235"
    assert METRICS["n_obs"].text(12) == "12"
    assert METRICS["strategy"].text("lbfgs") == "lbfgs"
    assert METRICS["ssim"].text(None) == METRICS["ssim"].text(math.nan) == "–"
