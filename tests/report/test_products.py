import csv
import json
import math
import resource
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import rasterio
import tifffile
import torch
from rasterio.windows import Window

from s2sr.errors import InputError
from s2sr.model.grid import Grid
from s2sr.model.scene import Observation, Scene
from s2sr.report.products import (
    check_disk,
    clearest_frame,
    read_geotiff,
    remove_earlier,
    shifts_csv,
    write_baseline,
    write_csv,
    write_geotiff,
    write_json,
)

BANDS = ("B02", "B04")


@pytest.fixture
def scene():
    frames = torch.rand(3, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(frames, dtype=torch.bool)
    valid[2, :, :2] = False
    observations = tuple(
        Observation(f"S2_{day}", f"2023-06-{day}T10:00:00Z", clear)
        for day, clear in (("13", 1.0), ("03", 1.0), ("08", 0.7))
    )
    rejected = (Observation("S2_05", "2023-06-05T10:00:00Z", 0.1, "10 % clear, data.min_clear is 30 %"),)
    grid = Grid("EPSG:32633", (10.0, 0.0, 499980.0, 0.0, -10.0, 4200000.0), (6, 7))
    return Scene(frames * valid, valid, grid, BANDS, observations, rejected)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", (10.0, 0.0, 499980.1234567, 0.0, -10.0, 4200000.7654321)),
        ("EPSG:3035", (10 / 3, 0.0, 4972952.780323621, 0.0, -10 / 3, 1978648.8355171906)),
        ("EPSG:32633", (7.0, 7.0, 499980.1, 7.0, -7.0, 42.7)),
        (None, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
        (None, (0.25, 0.0, 3.0, 0.0, 0.25, 5.0)),
    ],
)
def test_geotiff_comes_back_exactly(tmp_path, crs, transform):
    image = torch.rand(2, 37, 53)
    image[0, 3, 4] = math.nan
    grid = Grid(crs, transform, (37, 53))
    write_geotiff(tmp_path / "run" / "sr.tif", image, grid, BANDS, tags={"dates": "2023-06-03", "scale": 4})
    with rasterio.open(tmp_path / "run" / "sr.tif") as file:
        np.testing.assert_array_equal(file.read(), image.numpy())
        assert tuple(file.transform)[:6] == transform
        assert file.crs == (crs and rasterio.CRS.from_user_input(crs))
        assert file.descriptions == BANDS
        assert file.dtypes == ("float32", "float32")
        assert math.isnan(file.nodata)
        assert file.tags().items() >= {"dates": "2023-06-03", "scale": "4"}.items()
        assert file.compression.name == "deflate"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
    found, bands, where = read_geotiff(tmp_path / "run" / "sr.tif")
    np.testing.assert_array_equal(found, image.numpy())
    assert (bands, where.transform, where.shape) == (BANDS, transform, (37, 53))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["sr.tif"]


@pytest.mark.parametrize(("dtype", "nodata"), [(np.float64, math.nan), (np.uint8, None), (np.int32, None)])
def test_nodata_suits_the_type(tmp_path, dtype, nodata):
    grid = Grid("EPSG:32633", (2.5, 0.0, 499980.0, 0.0, -2.5, 4200000.0), (3, 4))
    write_geotiff(tmp_path / "one.tif", np.ones((1, 3, 4), dtype), grid, ["one"])
    with rasterio.open(tmp_path / "one.tif") as file:
        assert file.nodata == pytest.approx(nodata, nan_ok=True)


@contextmanager
def files_of_at_most(size):
    """Limit files to some bytes, as on a disk that is full then."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("missing", [10, 20_000, 200_000, 4_000_000])
def test_a_file_that_does_not_fit_on_the_disk_is_named_and_leaves_nothing(tmp_path, missing):
    """GDAL tells it when the file is closed, when it is copied, or when it is first written."""
    image = torch.rand(1, 1024, 1024)  # noise: compressed, with its overviews, it is larger than as it is
    grid = Grid("EPSG:32633", (2.5, 0.0, 499980.0, 0.0, -2.5, 4200000.0), (1024, 1024))
    write_geotiff(tmp_path / "sr.tif", image, grid, ["B02"])
    size = (tmp_path / "sr.tif").stat().st_size
    assert size > 1024 * 1024 * 4
    (tmp_path / "sr.tif").unlink()
    with (
        files_of_at_most(size - missing),
        pytest.raises(OSError, match=r"sr\.tif: could not be written \(.* MB of the disk are free\)"),
    ):
        write_geotiff(tmp_path / "sr.tif", image, grid, ["B02"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bands", "colours"),
    [
        (("B02", "B03", "B04", "B08"), ["blue", "green", "red", "undefined"]),
        (("B08", "B04", "B03", "B02"), ["undefined", "red", "green", "blue"]),
        (("B04", "B08"), ["gray", "undefined"]),
    ],
)
def test_a_viewer_shows_it_in_true_colour(tmp_path, bands, colours):
    grid = Grid("EPSG:32633", (2.5, 0.0, 499980.0, 0.0, -2.5, 4200000.0), (20, 30))
    write_geotiff(tmp_path / "sr.tif", torch.rand(len(bands), 20, 30), grid, bands)
    with rasterio.open(tmp_path / "sr.tif") as file:
        assert [each.name for each in file.colorinterp] == colours
        assert file.descriptions == bands


def test_geotiff_has_overviews_that_are_means(tmp_path):
    image = np.random.default_rng(0).random((1, 600, 1100), dtype=np.float32)
    grid = Grid("EPSG:32633", (2.5, 0.0, 0.0, 0.0, -2.5, 0.0), (600, 1100))
    write_geotiff(tmp_path / "sr.tif", image, grid, ["B02"])
    with rasterio.open(tmp_path / "sr.tif") as file:
        assert file.overviews(1)[0] == 2
        half = file.read(1, out_shape=(300, 550), window=Window(0, 0, 1100, 600))
    np.testing.assert_allclose(half, image[0].reshape(300, 2, 550, 2).mean((1, 3)), atol=1e-6)


def test_geotiff_of_the_wrong_shape_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="is not"):
        write_geotiff(tmp_path / "sr.tif", torch.zeros(2, 4, 4), Grid(None, (1, 0, 0, 0, 1, 0), (4, 5)), BANDS)
    assert not list(tmp_path.iterdir())


def test_an_independent_reader_finds_the_same_place(tmp_path):
    grid = Grid("EPSG:32633", (10.0, 0.0, 499980.0, 0.0, -10.0, 4200000.0), (61, 113)).crop(7, 11, (13, 17)).scaled(3)
    write_geotiff(tmp_path / "sr.tif", torch.zeros(2, 39, 51), grid, BANDS)
    with tifffile.TiffFile(tmp_path / "sr.tif") as file:
        found = file.geotiff_metadata
    assert found["ModelPixelScale"][:2] == pytest.approx([10 / 3, 10 / 3], rel=1e-12)
    assert found["ModelTiepoint"] == pytest.approx([0, 0, 0, 499980 + 110, 4200000 - 70, 0], rel=1e-12)
    assert int(found["ProjectedCSTypeGeoKey"]) == 32633


def test_check_disk_says_what_is_needed_and_free(tmp_path):
    check_disk(tmp_path / "not" / "yet", 1)
    with pytest.raises(InputError, match=r"needs 1000000000000 MB of disk and \d+ MB are free"):
        check_disk(tmp_path / "not" / "yet", 10**18)


def test_json_is_flat_ordered_and_has_no_nan(tmp_path):
    values = {"status": "ok", "psnr": math.nan, "ssim": -math.inf, "scale": np.int64(4), "evals": torch.tensor(7.0)}
    write_json(tmp_path / "metrics.json", values)
    text = (tmp_path / "metrics.json").read_text()
    assert list(json.loads(text).items()) == [
        ("status", "ok"), ("psnr", None), ("ssim", None), ("scale", 4), ("evals", 7.0),
    ]  # fmt: skip


def test_csv_has_all_columns_of_all_rows(tmp_path):
    write_csv(
        tmp_path / "a.csv", [{"job": 0, "psnr": 24.5}, {"job": 1, "error": 'a "b", c'}, {"job": 2, "psnr": math.nan}]
    )
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["psnr"] for row in rows] == ["24.5", "", ""]
    assert [row["error"] for row in rows] == ["", 'a "b", c', ""]


def test_shifts_csv_lists_used_and_rejected_observations_by_date(tmp_path, scene):
    shifts = torch.tensor([[0.1, -0.2], [0.0, 0.3], [-0.1, -0.1]])
    gains = torch.tensor([[1.0, 1.1], [0.9, 0.8], [1.1, 1.1]])
    noise = np.array([0.002, 0.003])
    shifts_csv(tmp_path / "shifts.csv", scene, shifts=shifts, gains=gains, offsets=torch.zeros(()), noise=noise)
    with (tmp_path / "shifts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "observation", "datetime", "dy", "dx", "gain_B02", "gain_B04", "offset_B02", "offset_B04",
        "noise_B02", "noise_B04", "clear_fraction", "weight", "used",
    ]  # fmt: skip
    assert [row["observation"] for row in rows] == ["S2_03", "S2_05", "S2_08", "S2_13"]
    first, rejected, cloudy, _ = rows
    assert (first["dy"], first["dx"], first["gain_B04"], first["noise_B04"]) == ("0.00000", "0.30000", "0.8", "0.003")
    assert first["used"] == "yes"
    assert rejected["used"] == "no: 10 % clear, data.min_clear is 30 %"
    assert rejected["dy"] == rejected["gain_B02"] == rejected["noise_B02"] == ""
    assert float(cloudy["clear_fraction"]) == 0.7
    # from bright, clear observations of low noise comes most: clear * mean over bands of (gain / noise)^2
    information = np.array([o.clear for o in scene.observations]) * ((gains.numpy() / noise) ** 2).mean(1)
    by_name = {o.name: share for o, share in zip(scene.observations, information / information.sum(), strict=True)}
    for row in rows:
        assert (float(row["weight"]) if row["weight"] else None) == pytest.approx(
            by_name.get(row["observation"]), abs=1e-4
        )


def test_a_new_run_shows_nothing_of_an_earlier_one(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    made = ("checkpoints/last.ckpt", "metrics.json", "report.html", "frc.png", "truth.tif", "sr_2024-06-01.tif")
    for name in (*made, "notes.txt"):
        (tmp_path / name).touch()
    remove_earlier(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_baseline_is_the_clearest_observation_nearest_to_the_mean(tmp_path, scene):
    mean = scene.temporal_mean
    distances = [(scene.frames[t] - mean).abs().mean() for t in (0, 1)]
    t, frame = clearest_frame(scene)
    assert t == int(np.argmin(distances))
    write_baseline(tmp_path, scene)
    np.testing.assert_array_equal(read_geotiff(tmp_path / "mean.tif")[0], mean.numpy())
    np.testing.assert_array_equal(read_geotiff(tmp_path / "observation.tif")[0], frame.numpy())
    cloudy = scene.select([2], "test")
    write_baseline(tmp_path, cloudy)
    assert np.isnan(read_geotiff(tmp_path / "observation.tif")[0][:, :2]).all()
