"""Scene folders written by rasterio, read back by SceneFolder; then the real ones."""

import datetime
import logging
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from rasterio.transform import Affine

from s2sr.data.demo import Demo
from s2sr.data.geotiff import SceneFolder
from s2sr.data.observation_file import ATTRIBUTION
from s2sr.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TRANSFORM = Affine(10, 0, 600000, 0, -10, 5600000)


def write(
    folder,
    name,
    layers,
    *,
    scale=1e-4,
    offset=0.0,
    nodata=None,
    crs="EPSG:32631",
    transform=TRANSFORM,
    **tags,
):
    """Write a GeoTIFF of the arrays `layers` {band: [y, x]}, without scale or offset tags where those are None."""
    stack = np.stack(list(layers.values()))
    path = folder / name
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(stack),
        height=stack.shape[1],
        width=stack.shape[2],
        dtype=stack.dtype,
        crs=crs,
        transform=transform,
        nodata=nodata,
    ) as target:
        target.write(stack)
        target.descriptions = tuple(layers)
        if scale is not None:
            target.scales = [1.0 if band == "SCL" else scale for band in layers]
            target.offsets = [0.0 if band == "SCL" else offset for band in layers]
        target.update_tags(**tags)
    return path


def counts(value=1000, *, shape=(6, 8), dtype=np.uint16):
    return np.full(shape, value, dtype)


@pytest.fixture
def folder(tmp_path):
    """A folder with five clear dates of B02 (1000 + date) and B04 (2000 + date)."""
    for t in range(5):
        write(tmp_path, f"S2_2023-06-{10 + t}.tif", {"B02": counts(1000 + t), "B04": counts(2000 + t)})
    return tmp_path


@pytest.mark.parametrize("side", [1, 17, 30])
def test_a_part_is_read_as_it_is_cut_from_the_whole(tmp_path, side):
    """Masks reach in from beyond its border, and whole frames decide what is usable."""
    cloudy = Demo(size=(30, 33), n_dates=6, cloudy=1, cloud_cover=0.2)
    source = SceneFolder(root=cloudy.write(tmp_path), min_clear=0.5)
    whole, part = source.load().crop(side), source.load(crop=side)
    for name in ("frames", "valid"):
        assert torch.equal(getattr(part, name), getattr(whole, name))
    assert (part.grid, part.rejected) == (whole.grid, whole.rejected)
    assert [o.name for o in part.observations] == [o.name for o in whole.observations]
    assert [o.clear for o in part.observations] == pytest.approx([o.clear for o in whole.observations])
    assert part.rejected
    assert side == 1 or not part.valid.all()
    with pytest.raises(InputError, match="crop=31 does not fit the scene of 30 x 33 pixels"):
        source.load(crop=31)


def test_a_part_of_large_files_needs_the_memory_of_one(tmp_path):
    for t in range(12):
        write(tmp_path, f"S2_2023-06-{10 + t}.tif", {"B04": counts(shape=(600, 600))})
    peaks = []
    for crop in (20, None):
        tracemalloc.start()
        SceneFolder(root=tmp_path).load(crop=crop)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 0.1 * peaks[1]


def error(folder, **settings):
    with pytest.raises(InputError) as caught:
        SceneFolder(root=folder, **settings).load()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_becomes_a_scene(folder):
    scene = SceneFolder(root=str(folder)).load()
    assert scene.bands == ("B02", "B04")
    assert scene.grid.crs == "EPSG:32631"
    assert scene.grid.transform == tuple(TRANSFORM)[:6]
    assert scene.grid.shape == (6, 8)
    assert scene.frames.dtype == torch.float32
    assert scene.valid.all()
    assert scene.attribution == ATTRIBUTION
    assert [o.datetime for o in scene.observations] == [f"2023-06-{10 + t}T00:00:00Z" for t in range(5)]
    expected = torch.tensor([[0.1 + 1e-4 * t, 0.2 + 1e-4 * t] for t in range(5)])
    torch.testing.assert_close(scene.frames, expected[:, :, None, None].expand(5, 2, 6, 8))


@pytest.mark.parametrize(
    ("dtype", "scale", "offset", "stored", "reflectance"),
    [
        (np.uint16, 1e-4, -0.1, 3000, 0.2),
        (np.uint16, 2e-5, 0.0, 3000, 0.06),
        (np.uint16, None, None, 3000, 0.3),
        (np.uint16, 1.0, 0.0, 3000, 0.3),
        (np.int16, None, None, -50, -0.005),
        (np.float32, None, None, 0.25, 0.25),
        (np.float32, 0.01, 0.0, 25, 0.25),
        (np.uint16, 1.0, -0.5, 1, 0.5),
    ],
)
def test_reflectance_is_dn_times_scale_plus_offset(tmp_path, dtype, scale, offset, stored, reflectance):
    for day in (10, 11):
        write(tmp_path, f"{day}_202306{day}.tif", {"B04": counts(stored, dtype=dtype)}, scale=scale, offset=offset)
    frames = SceneFolder(root=tmp_path).load().frames
    torch.testing.assert_close(frames, torch.full_like(frames, reflectance))


def test_every_sample_has_its_own_validity_and_invalid_samples_hold_zero(tmp_path):
    holes = {"B02": counts(0.1, dtype=np.float32), "B03": counts(0.1, dtype=np.float32)}
    holes["B02"][0, :3] = np.nan, np.inf, -np.inf
    holes["B03"][1, 1] = -9999
    for day in (10, 11):
        write(tmp_path, f"2023-06-{day}.tif", holes, nodata=-9999, scale=None)
    scene = SceneFolder(root=tmp_path).load()
    expected = torch.ones(2, 2, 6, 8, dtype=torch.bool)
    expected[:, 0, 0, :3] = expected[:, 1, 1, 1] = False
    assert torch.equal(scene.valid, expected)
    assert not scene.frames[~expected].any()
    assert scene.observations[0].clear == pytest.approx(92 / 96)


def test_integers_without_nodata_take_zero_and_a_named_nodata_replaces_it(tmp_path):
    layers = {"B02": counts()}
    layers["B02"][0, 0], layers["B02"][0, 1] = 0, 65535
    write(tmp_path, "2023-06-10.tif", layers)
    write(tmp_path, "2023-06-11.tif", layers, nodata=65535)
    assert SceneFolder(root=tmp_path).load().valid[:, 0, 0, :2].tolist() == [[False, True], [True, False]]


def test_scl_masks_all_bands_grows_and_is_not_fitted(tmp_path):
    scl = counts(4, shape=(12, 12))
    scl[5, 5], scl[0, 11] = 9, 11
    for day in (10, 11):
        layers = {
            "B02": counts(shape=(12, 12)),
            "B11": counts(shape=(12, 12)),
            "SCL": scl,
            "AOT": counts(shape=(12, 12)),
        }
        write(tmp_path, f"2023-06-{day}.tif", layers)
    scene = SceneFolder(root=tmp_path, dilate=1).load()
    assert scene.bands == ("B02", "B11")
    masked = torch.zeros(12, 12, dtype=torch.bool)
    masked[4:7, 4:7] = True
    assert torch.equal(~scene.valid, masked.expand(2, 2, 12, 12))
    assert not SceneFolder(root=tmp_path, dilate=1, mask_snow=True).load().valid[0, 0, 1, 10]
    assert SceneFolder(root=tmp_path, scl_classes=[]).load().valid.all()


def test_default_bands_are_canonical_and_common_to_all_files(tmp_path):
    write(tmp_path, "2023-06-10.tif", dict.fromkeys(["B8A", "B04", "B02", "B01", "SCL"], counts(4)))
    write(tmp_path, "2023-06-11.tif", dict.fromkeys(["B02", "B8A", "B03", "B09"], counts(4)))
    assert SceneFolder(root=tmp_path).load().bands == ("B02", "B8A")
    assert SceneFolder(root=tmp_path, bands=["B8A", "B02"]).load().bands == ("B8A", "B02")


def test_a_band_is_known_by_earth_engines_name_too(tmp_path):
    for day, names in (10, ("B2", "B8", "B8A", "B11")), (11, ("b02", "b08", "b8a", "B11")):
        write(tmp_path, f"2023-06-{day}.tif", {**dict.fromkeys(names, counts(day)), "scl": counts(4)})
    assert SceneFolder(root=tmp_path).load().bands == ("B02", "B08", "B8A", "B11")
    scene = SceneFolder(root=tmp_path, bands=["B8", "B2"], scl_classes=[4]), SceneFolder(root=tmp_path, bands=["B8"])
    assert scene[1].load().bands == ("B08",)
    with pytest.raises(InputError, match="masked"):
        scene[0].load()


@pytest.mark.parametrize("names", [("blue", "nir"), (None, None)])
def test_bands_that_nobody_knows_are_named(tmp_path, names):
    path = write(tmp_path, "2023-06-10.tif", {"B02": counts(), "B08": counts()})
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    said = error(tmp_path)
    assert said.startswith(
        f"2023-06-10.tif: its bands ({names[0] or 'unnamed 1'}, {names[1] or 'unnamed 2'}) are none of"
    )
    assert "band descriptions" in said


def test_dates_come_from_the_tag_or_else_from_the_name_and_order_the_observations(tmp_path):
    write(tmp_path, "a.tif", {"B02": counts()}, datetime="2023-06-23T12:00:31+02:00")
    write(tmp_path, "S2A_MSIL2A_20230621T100031_N0509_R122_T33TXG_20230621T154500.TIF", {"B02": counts()})
    write(tmp_path, "2023-06-20_x.tiff", {"B02": counts()}, datetime="2023-06-24")
    write(tmp_path, "12345678_2023_06_22.Tif", {"B02": counts()})
    for junk in ("basemap.tif", "._2023-06-22.tif", "notes_2023-06-22.txt"):
        (tmp_path / junk).write_text("not an observation")
    (tmp_path / "2022-01-01").mkdir()
    assert [o.datetime for o in SceneFolder(root=tmp_path).load().observations] == [
        "2023-06-21T10:00:31Z",
        "2023-06-22T00:00:00Z",
        "2023-06-23T10:00:31Z",
        "2023-06-24T00:00:00Z",
    ]


@pytest.mark.parametrize(
    "entry",
    ["2023-06-11", "20230611", 20230611, datetime.date(2023, 6, 11), "S2_2023-06-11", "S2_2023-06-11.tif"],
)
def test_exclude_by_date_or_name_even_an_unreadable_file(folder, entry):
    (folder / "S2_2023-06-11.tif").write_bytes(b"broken")
    scene = SceneFolder(root=folder, exclude=[entry]).load()
    assert len(scene) == 4
    assert [(o.name, o.rejected) for o in scene.rejected] == [("S2_2023-06-11", "excluded")]


def test_exclude_by_the_date_of_the_tag(tmp_path):
    for day in (1, 2, 3):
        write(tmp_path, f"{day}.tif", {"B02": counts()}, datetime=f"2023-06-0{day}T10:00:00Z")
    assert [o.name for o in SceneFolder(root=tmp_path, exclude=["2023-06-02"]).load().rejected] == ["2"]


def test_an_exclude_that_matches_nothing_is_said(folder, caplog):
    SceneFolder(root=folder, exclude=["2024-06-11"]).load()
    assert "data.exclude=[2024-06-11] matches no observation" in caplog.text


def test_cloudy_observations_are_rejected_with_the_reason_and_few_are_a_warning(folder, caplog):
    layers = {"B02": counts(), "B04": counts()}
    layers["B02"][:, :6] = layers["B04"][:, :6] = 0
    write(folder, "S2_2023-06-09.tif", layers)
    with caplog.at_level(logging.WARNING):
        scene = SceneFolder(root=folder).load()
        assert not caplog.records
        assert [(o.name, o.clear, o.rejected) for o in scene.rejected] == [
            ("S2_2023-06-09", 0.25, "clear fraction 0.25 is below data.min_clear=0.3")
        ]
        assert len(SceneFolder(root=folder, min_clear=0.25).load()) == 6
        assert len(SceneFolder(root=folder, exclude=["2023-06-11"]).load()) == 4
    assert "only 4 usable observations" in caplog.text


def test_attribution_of_the_files(folder):
    write(folder, "S2_2023-06-10.tif", {"B02": counts(), "B04": counts()}, attribution="Somebody 2023")
    assert SceneFolder(root=folder).load().attribution == f"Somebody 2023; {ATTRIBUTION}"


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [(1500, np.float32, "a median reflectance of 1500"), (255, np.uint8, "a largest reflectance of 0.0255")],
)
def test_what_was_never_scaled_is_noticed(tmp_path, caplog, value, dtype, said):
    for day in (10, 11):
        write(tmp_path, f"2023-06-{day}.tif", {"B02": counts(value, dtype=dtype)}, scale=None)
    SceneFolder(root=tmp_path).load()
    assert f"2023-06-10: {said}: are scale and offset tags missing?" in caplog.text


class TestBadInput:
    def test_no_folder(self, tmp_path):
        assert error(tmp_path / "nowhere") == f"data.root={tmp_path / 'nowhere'}: no such folder"

    def test_a_file(self, tmp_path):
        (tmp_path / "one.tif").touch()
        assert error(tmp_path / "one.tif") == f"data.root={tmp_path / 'one.tif'}: a file, not a folder"

    def test_no_geotiff(self, tmp_path):
        (tmp_path / "basemap.tif").touch()
        assert "no GeoTIFF" in error(tmp_path)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"shape": (6, 9)}, "its size (rows, columns) (6, 9) differs from (6, 8) in S2_2023-06-10.tif"),
            ({"crs": "EPSG:32632"}, "its CRS EPSG:32632 differs from EPSG:32631 in S2_2023-06-10.tif"),
            ({"crs": None}, "its CRS None differs from EPSG:32631"),
            ({"transform": Affine(10, 0, 600005, 0, -10, 5600000)}, "its transform (10.0, 0.0, 600005.0"),
            ({"transform": Affine(10.01, 0, 600000, 0, -10.01, 5600000)}, "its transform (10.0"),
        ],
    )
    def test_another_grid(self, folder, change, said):
        value = counts(shape=change.pop("shape", (6, 8)))
        write(folder, "S2_2023-06-12.tif", {"B02": value, "B04": value}, **change)
        message = error(folder)
        assert message.startswith("S2_2023-06-12.tif: ")
        assert said in message

    def test_a_rounded_transform_is_the_same_grid(self, folder):
        layers = {"B02": counts(), "B04": counts()}
        write(folder, "S2_2023-06-12.tif", layers, transform=Affine(10, 0, 600000 + 1e-7, 0, -10, 5600000))
        assert len(SceneFolder(root=folder).load()) == 5

    def test_a_missing_band(self, folder):
        message = error(folder, bands=["B02", "B08"])
        assert message == "S2_2023-06-10.tif: band B08 is not in (B02, B04); choose data.bands=[...]"
        write(folder, "S2_2023-06-13.tif", {"B02": counts()})
        assert error(folder, bands=["B02", "B04"]).startswith("S2_2023-06-13.tif: band B04 is not in (B02)")

    def test_no_common_band(self, folder):
        write(folder, "S2_2023-06-13.tif", {"B08": counts(), "SCL": counts(4)})
        message = error(folder)
        assert message.startswith(
            "S2_2023-06-13.tif: its bands (B08, SCL) are none of B02, B04; name them so by their band descriptions"
        )

    def test_unnamed_bands(self, tmp_path):
        with rasterio.open(
            tmp_path / "2023-06-10.tif",
            "w",
            driver="GTiff",
            count=1,
            height=2,
            width=2,
            dtype="uint8",
            transform=TRANSFORM,
        ) as target:
            target.write(np.ones((1, 2, 2), np.uint8))
        assert "is not in (unnamed 1)" in error(tmp_path, bands=["B02"])

    def test_bands_that_are_no_list(self, folder):
        assert "data.bands=[B02]" in error(folder, bands="B02")

    @pytest.mark.parametrize("keep", [0, 200, 0.6])
    def test_a_truncated_file(self, tmp_path, keep):
        noise = np.random.default_rng(0).integers(1, 9999, (200, 200)).astype(np.uint16)
        for day in (10, 11):
            path = write(tmp_path, f"2023-06-{day}.tif", {"B02": noise})
        whole = path.read_bytes()
        path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
        message = error(tmp_path)
        assert message.startswith("2023-06-11.tif: not a GeoTIFF, or truncated (")
        assert message.endswith("replace it or data.exclude=[2023-06-11.tif]")

    def test_not_a_tiff(self, folder):
        (folder / "S2_2023-06-11.tif").write_text("<html>404</html>")
        assert error(folder).startswith("S2_2023-06-11.tif: not a GeoTIFF")

    def test_no_date(self, folder):
        shutil.copy(folder / "S2_2023-06-10.tif", folder / "S2_20231399.tif")
        assert error(folder).startswith("S2_20231399.tif: no date")

    def test_a_tag_that_is_no_date(self, folder):
        write(folder, "S2_2023-06-11.tif", {"B02": counts(), "B04": counts()}, datetime="yesterday")
        assert error(folder).startswith("S2_2023-06-11.tif: its tag datetime=yesterday is not ISO 8601")

    def test_all_masked(self, tmp_path):
        for day in (10, 11):
            write(tmp_path, f"2023-06-{day}.tif", {"B02": counts(0)})
        assert "all pixels of all 2 observations are masked" in error(tmp_path)

    def test_too_few_usable(self, folder):
        layers = {"B02": counts(), "B04": counts()}
        layers["B02"][:, :6] = layers["B04"][:, :6] = 0
        for day in range(11, 15):
            write(folder, f"S2_2023-06-{day}.tif", layers)
        message = error(folder, exclude=["2023-06-14"])
        assert "1 of 4 observations usable, at least 2 are needed" in message
        assert "1 from 0.9, 1 from 0.7, 1 from 0.5, 1 from 0.3, 4 from 0.1" in message
        assert message.endswith("1 excluded; try data.min_clear=0.25")
        assert len(SceneFolder(root=folder, min_clear=0.25).load()) == 5

    def test_one_file(self, tmp_path):
        write(tmp_path, "2023-06-10.tif", {"B02": counts()})
        assert error(tmp_path).endswith("add observations")

    def test_everything_excluded(self, folder):
        assert "data.exclude leaves none of the 5" in error(folder, exclude=["2023"])

    @pytest.mark.parametrize(
        "settings",
        [
            {"min_clear": 1.5},
            {"min_clear": "most"},
            {"dilate": -1},
            {"dilate": 0.5},
            {"scl_classes": [12]},
            {"scl_classes": "8"},
        ],
    )
    def test_settings(self, folder, settings):
        (name,) = settings
        assert error(folder, **settings).startswith(f"data.{name}=")


def test_the_yaml_names_every_field_with_its_default():
    node = yaml.safe_load((ROOT / "conf/data/geotiff.yaml").read_text())
    assert node.pop("_target_") == "s2sr.data.geotiff.SceneFolder"
    assert node.pop("root") == "???"
    defaults = {name: field.default for name, field in SceneFolder.__dataclass_fields__.items() if name != "root"}
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in node.items()} == defaults


REAL = {  # folder: observations, bands, usable
    "apulia_clear": (14, "B02 B03 B04", 14),
    "apulia_cloudy_dates": (5, "B02 B03 B04", 5),
    "belgium_monthly": (10, "B02 B03 B04 B05 B06 B07 B08 B11 B12", 10),
    "antwerp_cloudy": (19, "B02 B03 B04 B08", 2),
    "belgium_apr_cloudy": (12, "B04 B08 B11", 2),
    "belgium_winter_haze": (20, "B02 B03 B04 B08", 5),
}


@pytest.mark.parametrize("name", REAL)
def test_real_folders(shared_data, name, caplog):
    count, bands, usable = REAL[name]
    scene = SceneFolder(root=shared_data / name).load()
    assert (len(scene) + len(scene.rejected), " ".join(scene.bands), len(scene)) == (count, bands, usable)
    assert 0.02 < float(scene.frames[scene.valid].median()) < 0.5
    assert ("usable observations" in caplog.text) == (usable < 5)


def test_a_real_folder_with_too_few(shared_data):
    message = error(shared_data / "antwerp_cloudy", exclude=["2023-10-22"])
    assert "1 of 18 observations usable" in message
    assert "try data.min_clear=" in message
