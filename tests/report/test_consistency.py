from dataclasses import replace

import numpy as np
import pytest
import torch

from s2sr.model.grid import Grid
from s2sr.model.scene import Observation, Scene
from s2sr.report.consistency import brightness, check_level, consistency, maps, standardised
from s2sr.report.figures import pixels

BANDS = ("B02", "B04", "B08")
NOISE = torch.tensor([0.002, 0.004, 0.003])
DATES, SIZE = 9, (30, 38)


@pytest.fixture
def truth():
    """[t, b, y, x] the frames that a perfect product would predict."""
    generator = torch.Generator().manual_seed(1)
    level = torch.tensor([0.06, 0.08, 0.3])[:, None, None]
    return (level * (1 + 0.2 * torch.rand(len(BANDS), *SIZE, generator=generator))).repeat(DATES, 1, 1, 1)


@pytest.fixture
def scene(truth):
    frames = truth + NOISE[:, None, None] * torch.randn(truth.shape, generator=torch.Generator().manual_seed(2))
    valid = torch.ones_like(truth, dtype=torch.bool)
    valid[2, :, :10] = False
    valid[:, :, 5, 5] = False
    names = tuple(Observation(str(t), f"2024-05-{t + 1:02d}", 1.0) for t in range(DATES))
    return Scene(torch.where(valid, frames, 0.0), valid, Grid(None, (1, 0, 0, 0, -1, 0), SIZE), BANDS, names)


STD = NOISE.repeat(DATES, 1)


def test_the_truth_leaves_the_noise(scene, truth):
    found = consistency(scene, truth, STD)
    count = int(scene.valid[:, 0].sum())
    for band, std in zip(BANDS, NOISE.tolist(), strict=True):
        assert abs(found[f"consistency_bias_{band}"]) < 4 * std / count**0.5
        assert found[f"consistency_rms_{band}"] == pytest.approx(1, abs=4 / (2 * count) ** 0.5)
    assert abs(found["ndvi_bias"]) < 0.001
    assert 0.005 < found["ndvi_rmse"] < 0.05  # .004 * 2 * .3 / .4^2 = .015 of the red


def test_a_bias_is_found_in_its_band(scene, truth):
    wrong = truth.clone()
    wrong[:, 1] += 0.003
    found, right = consistency(scene, wrong, STD), consistency(scene, truth, STD)
    assert found["consistency_bias_B04"] - right["consistency_bias_B04"] == pytest.approx(0.003, rel=1e-4)
    assert found["consistency_rms_B04"] == pytest.approx((1 + 0.75**2) ** 0.5, rel=0.03)
    for key in ("consistency_bias_B02", "consistency_rms_B08"):
        assert found[key] == right[key]
    assert found["ndvi_bias"] < -0.005  # more red
    z = standardised(scene, wrong, STD)
    assert float(z[1].nanmean()) == pytest.approx(0.75 * DATES**0.5, rel=0.05)
    assert abs(float(z[0].nanmean())) < 0.15


def test_masked_samples_do_not_count(scene, truth):
    found = consistency(scene, torch.where(scene.valid, truth, 9.0), STD)
    assert found == consistency(scene, truth, STD)


def test_ndvi_needs_red_and_infrared_and_light(scene, truth):
    two = replace(scene, frames=scene.frames[:, :2], valid=scene.valid[:, :2], bands=BANDS[:2])
    two = replace(two, judged=None, validation=None)
    assert not any(key.startswith("ndvi") for key in consistency(two, truth[:, :2], STD[:, :2]))
    dark, water = scene.frames.clone(), truth.clone()
    dark[:, 1:, 20:], water[:, 1:, 20:] = 0.001, 0.002
    water[:, 2, 20:] = -0.0019
    lit = consistency(replace(scene, frames=dark), water, STD)
    assert lit["ndvi_rmse"] < 0.05


def test_the_map_of_noise_is_standard_and_a_change_stands_out(scene, truth):
    z = standardised(scene, truth, STD)
    assert z[:, 5, 5].isnan().all()
    assert float(z[~z.isnan()].std()) == pytest.approx(1, abs=0.06)
    changed = truth.clone()
    changed[:, 0, 20:26, 20:26] += 0.01
    picture = pixels(maps(scene, changed, STD)).astype(int)
    assert picture.shape[1] > 3 * 300
    saturated = (abs(picture - (103, 0, 31)).max(-1) < 12).mean(0)  # beyond 3 standard errors
    third = picture.shape[1] // 3
    assert saturated[:third].max() > 0.1 > 0.05 > saturated[third:].max()


def test_brightness_is_that_of_the_temporal_mean(scene):
    mean = scene.temporal_mean
    fine = mean.repeat_interleave(4, 1).repeat_interleave(4, 2)
    ripple = torch.from_numpy(np.tile([0.1, -0.1, -0.1, 0.1], SIZE[1])).float()
    assert list(brightness(scene, fine + ripple, 4).values()) == pytest.approx([0, 0, 0], abs=1e-7)
    assert brightness(scene, fine + 0.01, 4)["mean_bias_B08"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("haze", "said"), [(0.09, "brighter"), (-0.09, "darker"), (0.04, None)])
def test_a_date_that_sets_the_product_apart_from_most_is_named(scene, haze, said, caplog):
    """Its nine dates average to 0: by .09 of one, eight are .01 off, where .005 + .05 * .08 to .09 is tolerated."""
    offset = torch.zeros(DATES, len(BANDS))
    offset[4, 1] = haze
    offset -= offset.mean(0)
    check_level(scene, torch.ones(DATES, len(BANDS)), offset)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * (said is not None)
    if said:
        assert caplog.messages[0].startswith(f"B04: the product is 0.010 {said} than most observations")
        assert f"and 4 is 0.090 {said} than most; exclude that date (data.exclude)" in caplog.messages[0]


def test_a_season_that_grows_brighter_is_no_such_date(scene, caplog):
    offset = torch.linspace(-0.1, 0.1, DATES)[:, None].expand(-1, len(BANDS))
    check_level(scene, torch.linspace(0.8, 1.2, DATES)[:, None].expand_as(offset), offset)
    assert not caplog.records
