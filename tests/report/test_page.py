"""The pages as files: what they hold, and that they hold it themselves. How they behave: test_browser.py."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from folders import write_job, write_run, write_settings
from PIL import Image

from s2sr.errors import InputError
from s2sr.report.__main__ import main
from s2sr.report.page import Raster, size, uri
from s2sr.report.products import write_json
from s2sr.report.run_page import command, write_run_page
from s2sr.report.sweep import collate

METRICS = {
    "status": "ok",
    "strategy": "bayes",
    "psnr": 24.126,
    "psnr_bicubic": 22.0,
    "psf_sigma": 0.41,
    "psf_sigma_B02": 0.4,
    "scale": 4,
}
VOID = {"meta", "link", "img", "input", "br", "hr"}
REFERS = {"src", "href", "xlink:href", "action", "poster", "data"}


class Page(HTMLParser):
    """The elements of a page. Parsing fails on tags that do not close."""

    def __init__(self, folder):
        super().__init__()
        self.text = (folder / "report.html").read_text()
        self.elements, self._open, self.words = [], [], []
        self.feed(self.text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] not in (["script"], ["style"]):
            self.words.append(data)

    @property
    def prose(self):
        return " ".join(" ".join(self.words).split())

    def values(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def assert_self_contained(folder):
    """Everything that the page refers to is in the page or lies beside it; nothing comes from a network."""
    page = Page(folder)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    references = [value for name in REFERS for value in page.values(name)]
    for reference in references + re.findall(r"url\(([^)]*)\)", page.text):
        if reference.startswith("data:image/"):
            Image.open(io.BytesIO(base64.b64decode(reference.partition("base64,")[2]))).load()
        elif reference.startswith("#"):
            assert reference[1:] in ids
        elif reference != "data:,":
            assert not re.match(r"[a-z]+:|/", reference), reference
            assert (folder / reference).exists(), reference
    for name in ("aria-labelledby", "aria-describedby", "for"):
        assert {part for value in page.values(name) for part in value.split()} <= set(ids)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"' )]*", page.text)) <= namespaces
    assert "@import" not in page.text
    assert all(attributes.get("alt") is not None for tag, attributes in page.elements if tag == "img")
    return page


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path / "run", METRICS, "psf.sigma=0.4")
    return tmp_path / "run"


def test_a_run(folder):
    assert write_run_page(folder) == []
    page = assert_self_contained(folder)
    assert "PSNR 24.13 22.00 dB" in page.prose
    assert "PSF sigma 0.410 px" in page.prose
    assert "2 observations from 2023-06-01 to 2023-06-02, B02 B03 B04, 4x, strategy bayes" in page.prose
    assert "python train.py psf.sigma=0.4 'hydra.run.dir=a b'" in page.prose
    assert "2023-06-01 S2_0 100% 50.0% +0.100 -0.200 1.000 1.000 1.000" in page.prose
    assert "seed: 0 # & <b>" in page.prose
    assert "1.2.3" in page.prose
    assert "has not finished" not in page.prose
    alts = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    assert [alt for alt in alts if alt] == ["One observation", "Bicubic of the mean", "Reconstruction", "Truth"]
    assert len([tag for tag, _ in page.elements if tag == "svg"]) == 2
    links = page.values("href")
    assert {"sr.tif", "metrics.json", "shifts.csv", ".hydra/"} <= set(links)


def test_layers_show_the_same_place_under_one_stretch(folder):
    write_run_page(folder)
    pictures = [a["src"] for tag, a in Page(folder).elements if tag == "img" and a.get("src")]
    observation, _, product, truth = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(src.partition("base64,")[2])))) for src in pictures
    )
    assert observation.shape == (16, 20, 3)
    np.testing.assert_array_equal(product, truth)  # of this folder they are equal
    stretch = Raster.read(folder / "sr.tif").stretch()
    own = Raster.read(folder / "observation.tif").drawn("", "", "", stretch).pixels
    np.testing.assert_array_equal(observation, own)


def test_a_run_that_was_moved(folder, tmp_path):
    write_run_page(folder)
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "mövéd & run")
    assert_self_contained(moved)
    assert main(moved) == str(moved / "report.html")
    assert "mövéd & run" in assert_self_contained(moved).prose


@pytest.mark.parametrize(
    "gone",
    [
        ["metrics.json"],
        ["sr.tif"],
        ["shifts.csv", "metrics.csv"],
        ["mean.tif", "observation.tif", "truth.tif"],
        ["sr.tif", "mean.tif", "observation.tif", "truth.tif", "metrics.json", "shifts.csv"],
    ],
)
def test_a_run_that_was_interrupted_says_what_is_missing(folder, gone):
    for name in gone:
        (folder / name).unlink()
    said = main(folder)
    page = assert_self_contained(folder)
    for name in set(gone) - {"truth.tif"}:
        assert f"no {name}" in said
        assert name in page.prose
    assert ("has not finished" in page.prose) == bool({"metrics.json", "sr.tif"} & set(gone))


def test_a_run_that_failed_says_why(folder):
    write_json(folder / "metrics.json", {"status": "failed", "error": "<script>alert(1)</script> & more"})
    (folder / "sr.tif").unlink()
    write_run_page(folder)
    assert "The run failed. <script>alert(1)</script> & more" in assert_self_contained(folder).prose


def test_known_figures_are_shown_and_others_passed_over(folder):
    for name in ("uncertainty.png", "holiday.png"):
        Image.new("RGB", (4, 4)).save(folder / name)
    write_json(folder / "metrics.json", METRICS | {"number_of_the_beast": 666.6})
    write_run_page(folder)
    page = assert_self_contained(folder)
    assert "How certain the product is, pixel by pixel." in page.prose
    assert "holiday" not in page.prose
    assert "666.6" not in page.prose


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (999_600, "1 MB"), (2.5e9, "2.5 GB")]
)
def test_sizes_of_files_have_three_digits(count, text):
    assert size(count) == text


def test_a_large_product_makes_no_large_page():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((2048, 2048), Image.Resampling.BICUBIC))
    assert uri(coarse).startswith("data:image/png")
    assert uri(large).startswith("data:image/jpeg")
    assert len(uri(large)) < 3e6


def test_sizes_are_in_units_that_can_be_read():
    assert [size(n) for n in (0, 999, 1500, 2_340_000, 5.6e9)] == ["0 B", "999 B", "1.5 kB", "2.34 MB", "5.6 GB"]


def test_a_raster_is_read_at_no_more_pixels_than_are_shown(folder):
    raster = Raster.read(folder / "sr.tif", side=10)
    assert raster.image.shape == (3, 8, 10)
    assert raster.bands == ("B04", "B03", "B02")
    whole = Raster.read(folder / "sr.tif").image
    np.testing.assert_allclose(raster.image, whole.reshape(3, 8, 8, 10, 8).mean((2, 4)), rtol=1e-5)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_another_folder_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not the folder of a run or of a sweep"):
        main(tmp_path / name)


def test_a_damaged_file_is_named(folder):
    (folder / "sr.tif").write_text("not a TIFF")
    with pytest.raises(InputError, match=r"sr\.tif"):
        main(folder)


def sweep(folder):
    for n, sigma in enumerate((0.3, 0.4)):
        metrics = METRICS | {"holdout_rmse": sigma / 100, "edge_contrast": 1 + sigma, "psf_sigma": sigma}
        write_job(folder / str(n), [f"psf.sigma={sigma}"], metrics=metrics)
        write_settings(folder / str(n) / ".hydra" / "hydra.yaml", [f"psf.sigma={sigma}"], "MULTIRUN")
    write_job(folder / "2", ["psf.sigma=-1"], metrics={"status": "failed", "error": "psf.sigma must be positive"})
    write_settings(folder / "multirun.yaml", ["psf.sigma=0.3,0.4,-1"], "MULTIRUN")


def test_a_sweep_and_its_jobs_point_at_each_other(tmp_path):
    sweep(tmp_path / "a")
    for job in ("0", "1"):
        write_run_page(tmp_path / "a" / job)
    collate(tmp_path / "a")
    moved = (tmp_path / "a").rename(tmp_path / "b")
    page = assert_self_contained(moved)
    assert {"0/report.html", "1/report.html", "sweep.csv", "README.md"} <= set(page.values("href"))
    assert "2/report.html" not in page.values("href")
    assert "psf.sigma must be positive" in page.prose
    assert "1 of 3 failed" in page.prose
    assert "held-out error: least at psf.sigma=0.3 (0.00300 reflectance)" in page.prose
    assert "python sweep.py -m psf.sigma=0.3,0.4,-1" in page.prose
    job = assert_self_contained(moved / "0")
    assert "../report.html" in job.values("href")
    assert "python train.py psf.sigma=0.3 " in job.prose + " "
    assert "hydra.run.dir" not in job.prose
    said = main(moved)
    assert said.splitlines()[0] == str(moved / "report.html")
    assert "failed job 2" in said


def test_a_sweep_that_failed_altogether(tmp_path):
    write_job(tmp_path / "0", ["psf.sigma=-1"], metrics={"status": "failed", "error": "no"})
    collate(tmp_path)
    assert "1 of 1 failed" in assert_self_contained(tmp_path).prose


def test_the_command_is_what_was_typed():
    overrides = {
        "task": ["psf='0.5'", "c2f='2_4','4'", "data.start='2024'", "data.root=a b"],
        "hydra": ["hydra.mode=RUN"],
    }
    typed = command({"mode": "RUN", "overrides": overrides})
    assert typed == """python train.py psf=0.5 c2f=2_4,4 'data.start='"'"'2024'"'"'' 'data.root=a b'"""
    assert command({}) == ""


def test_a_page_is_the_same_when_it_is_written_again(folder):
    write_run_page(folder)
    first = (folder / "report.html").read_bytes()
    write_run_page(folder)
    assert (folder / "report.html").read_bytes() == first


def test_a_table_of_an_earlier_version(folder):
    """It lacks a column, and has other bands than the product."""
    text = (folder / "shifts.csv").read_text().replace("weight", "mass").replace("noise_B04", "noise_B08")
    (folder / "shifts.csv").write_text(text)
    write_run_page(folder)
    assert "2023-06-01 S2_0 100% +0.100 -0.200" in assert_self_contained(folder).prose


def test_no_hydra_folder(folder):
    """The Python API leaves no such folder."""
    shutil.rmtree(folder / ".hydra")
    assert write_run_page(folder) == [".hydra/config.yaml"]
    assert "python train.py" not in assert_self_contained(folder).prose
