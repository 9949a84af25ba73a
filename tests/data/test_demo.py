import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml

from s2sr.data.demo import Demo
from s2sr.data.landscape import Material, landscape
from s2sr.errors import InputError

SMALL = Demo(size=(15, 22), n_dates=4, pixels_per_lr=8, seed=3, cloudy=0.5, cloud_cover=0.2)
STILL = replace(SMALL, noise=0, gain_std=0, haze_std=0, cloudy=0)


@pytest.fixture(scope="module")
def scene():
    return SMALL.load()


def test_shapes_dates_and_place(scene):
    assert scene.frames.shape == (4, 4, 15, 22)
    assert scene.truth.reflectance.shape == (4, 120, 176)
    assert scene.bands == ("B02", "B03", "B04", "B08")
    assert [o.datetime for o in scene.observations] == ["2023-05-02", "2023-05-07", "2023-05-12", "2023-05-17"]
    assert scene.grid.crs.startswith("EPSG:326")
    assert scene.grid.transform[0] == -scene.grid.transform[4] == 10
    assert 0 < scene.truth.reflectance.min() < scene.truth.reflectance.max() < 1


def test_equal_seeds_give_equal_scenes_and_others_differ(scene):
    again, other = SMALL.load(), replace(SMALL, seed=4).load()
    assert torch.equal(scene.frames, again.frames)
    assert torch.equal(scene.valid, again.valid)
    assert not torch.equal(scene.truth.reflectance, other.truth.reflectance)
    assert not torch.equal(scene.truth.shifts, other.truth.shifts)


def test_the_truth_does_not_depend_on_what_disturbs_it(scene):
    assert torch.equal(scene.truth.reflectance, replace(STILL, changing=0).load().truth.reflectance)
    assert torch.equal(scene.truth.shifts, replace(STILL, changing=0).load().truth.shifts)


def test_the_mean_of_the_dates_is_the_mean_of_the_truth():
    """Shifts, gains, hazes and the season are all centred, so what is left is their second order."""
    quiet = replace(SMALL, noise=0, cloudy=0, changing=1, change=0.5, jitter=0).load()
    np.testing.assert_allclose(quiet.truth.shifts.mean(0), 0, atol=1e-7)
    unchanged = replace(STILL, changing=0, jitter=0).load()
    still = replace(STILL, changing=1, change=0.5, jitter=0).load()
    np.testing.assert_allclose(still.frames.mean(0), unchanged.frames.mean(0), atol=1e-6)
    np.testing.assert_allclose(quiet.frames.mean(0), unchanged.frames.mean(0), atol=2e-3)
    assert (quiet.frames[0] - unchanged.frames[0]).std() > 5e-3


def test_some_fields_green_and_some_are_harvested_and_the_rest_stays():
    """The first and the last date are compared in the near infrared, where crops are bright."""
    first, *_, last = replace(STILL, size=48, changing=0.3, jitter=0).load().frames[:, 3]
    change = last - first
    assert change.max() > 0.02
    assert change.min() < -0.02
    assert (change.abs() < 1e-6).float().mean() > 0.4


def test_clouds_are_in_the_pixels_and_the_scl_and_not_in_the_valid_samples(scene):
    clear = replace(SMALL, cloudy=0).load()
    frames, scl, _ = SMALL._acquire()
    masked = torch.from_numpy(np.isin(scl, (3, 8, 9)))
    assert {3, 8, 9} < set(np.unique(scl)) <= {3, 4, 5, 6, 8, 9}
    assert torch.equal(~masked[:, None].expand_as(scene.valid), scene.valid)
    assert masked.any(2).any(1).sum() == 2  # half of the dates
    assert (scene.frames[~scene.valid] == 0).all()
    assert torch.equal(scene.frames[scene.valid], clear.frames[scene.valid])
    harm = frames - clear.frames.numpy()
    assert harm[:, 0][scl == 9].min() > 0.1
    assert harm[:, 3][scl == 3].mean() < -0.02
    np.testing.assert_allclose([o.clear for o in scene.observations], scene.valid.float().mean((1, 2, 3)), rtol=1e-6)


def test_an_imperfect_scl_lets_thin_clouds_through(scene):
    missed = replace(SMALL, scl_misses=0.3).load()
    clear = replace(SMALL, cloudy=0).load()
    assert missed.valid.sum() > scene.valid.sum()
    assert ((missed.frames - clear.frames)[missed.valid].abs() > 0.01).any()


def test_the_written_folder_holds_the_same_frames(scene, tmp_path):
    folder = SMALL.write(tmp_path / "scene")
    paths = sorted(folder.iterdir())
    assert [p.name for p in paths] == [f"{o.name}.tif" for o in scene.observations]
    for t, path in enumerate(paths):
        with rasterio.open(path) as file:
            assert file.descriptions == ("B02", "B03", "B04", "B08", "SCL")
            assert set(file.dtypes) == {"uint16"}
            assert file.nodata == 0
            assert file.crs.to_string() == scene.grid.crs
            assert file.transform[:6] == scene.grid.transform
            assert file.tags()["datetime"] == scene.observations[t].datetime
            assert file.scales == (1e-4,) * 4 + (1.0,)
            assert file.offsets == (0,) * 5
            numbers = file.read()
        assert (numbers > 0).all()
        reflectance = torch.from_numpy(numbers[:4] * 1e-4)
        valid = scene.valid[t]
        assert (reflectance - scene.frames[t])[valid].abs().max() <= 0.5001e-4
        assert torch.equal(torch.from_numpy(~np.isin(numbers[4], (3, 8, 9))), valid[0])
        assert (numbers[0][numbers[4] == 9] > 2500).all()  # the clouds are still there


def test_bands_and_widths_are_chosen_by_the_user():
    chosen = replace(STILL, bands=["B08", "B03"], sigma_psf={"B08": 0.5, "B03": 0.3}).load()
    every = STILL.load()
    assert chosen.bands == ("B08", "B03")
    assert torch.equal(chosen.truth.reflectance, every.truth.reflectance[[3, 1]])
    np.testing.assert_allclose(chosen.truth.sigma_psf, [0.5, 0.3])
    np.testing.assert_allclose(every.truth.sigma_psf, [0.387, 0.412, 0.451, 0.462], atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"bands": ["B05"]}, r"B05.*B02, B03, B04, B08"),
        ({"size": 2}, "data.size=2"),
        ({"size": [20, 20, 20]}, "data.size"),
        ({"n_dates": 0}, "data.n_dates=0 must be at least 1"),
        ({"pixels_per_lr": 4}, "data.pixels_per_lr=4 must be at least 8"),
        ({"cloudy": 1.5}, "data.cloudy=1.5 must be a fraction"),
        ({"noise": float("nan")}, "data.noise=nan"),
        ({"sigma_psf": 0.0}, "data.sigma_psf=0.0 must be positive"),
        ({"sigma_psf": {"B02": 0.4}}, "data.sigma_psf has no value for B03, B04, B08"),
        ({"start": "May"}, "data.start=May is not a date"),
    ],
)
def test_impossible_values_are_refused_in_one_line(wrong, line):
    with pytest.raises(InputError, match=line):
        replace(SMALL, **wrong).load()


def test_the_configuration_repeats_the_defaults():
    """Readers learn the defaults from the YAML; the code must not have others."""
    path = Path(__file__).resolve().parents[2] / "conf/data/demo.yaml"
    values = yaml.safe_load(path.read_text())
    assert values.pop("_target_") == "s2sr.data.demo.Demo"
    assert values.pop("seed") == "${seed}"
    defaults = {f.name: f.default for f in fields(Demo) if f.name != "seed"}
    assert values == {**defaults, "bands": list(defaults["bands"])}


def test_the_landscape_has_every_material_and_plausible_spectra():
    land = landscape((700, 700), pixels_per_lr=10, seed=2)
    assert set(np.unique(land.material)) == set(Material)
    blue, green, red, infrared = land.reflectance
    ndvi = (infrared - red) / (infrared + red)
    assert ndvi[land.material == Material.TREE].mean() > 0.6
    assert ndvi[land.material == Material.WATER].mean() < 0
    assert abs(ndvi[land.material == Material.ROAD].mean()) < 0.2
    assert (green > blue)[land.material == Material.FIELD].all()
    assert land.cover.shape == (land.field.max() + 1,)
    assert land.crop_over_soil.shape == (len(land.cover), 4)


def test_the_same_seed_is_the_same_place_at_any_resolution():
    """As LR pixels see them, places correlate by .98 to .99 over six seeds, and by .33 at most between two seeds."""
    coarse, fine = (landscape((40 * k, 40 * k), pixels_per_lr=k, seed=1) for k in (8, 16))
    a, b = (
        land.reflectance.reshape(4, 40, k, 40, k).mean((2, 4)).reshape(4, -1) for land, k in ((coarse, 8), (fine, 16))
    )
    agreement = [np.corrcoef(*pair)[0, 1] for pair in zip(a, b, strict=True)]
    assert min(agreement) > 0.97


def test_the_default_scene_loads_quickly():
    """About 3 s were measured on one core; the bound is for a busy machine."""
    start = time.process_time()
    Demo().load()
    assert time.process_time() - start < 12
