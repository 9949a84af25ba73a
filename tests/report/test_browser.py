"""The pages in a real browser. Playwright drives a Chromium that is installed, or its own (`playwright install`)."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import write_job, write_run
from PIL import Image

from s2sr.report.run_page import write_run_page
from s2sr.report.sweep import collate

METRICS = {"status": "ok", "psnr": 24.126, "psnr_bicubic": 22.0, "edge_contrast": 0.9, "scale": 4}
HELDOUT = {f"holdout_rmse{of}": 0.012345 for of in ("", "_with_change", "_temporal_mean", "_bicubic", "_wiener")}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the pages are not seen: playwright is not installed"
    )
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        if not installed and not Path(driver.chromium.executable_path).exists():
            pytest.skip("the pages are not seen: there is no Chromium (try `playwright install chromium`)")
        with driver.chromium.launch(executable_path=installed, chromium_sandbox=False) as chromium:
            yield chromium


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_run(folder / "run", METRICS | HELDOUT, "psf.sigma=0.4")
    write_run_page(folder / "run")
    for n, sigma in enumerate((0.3, 0.4)):
        write_job(folder / "sweep" / str(n), [f"psf.sigma={sigma}"], metrics=METRICS | {"edge_contrast": sigma})
    write_run_page(folder / "sweep" / "0")
    collate(folder / "sweep")
    return folder


@pytest.fixture
def opened(browser, folder):
    """Opens a page; at the end nothing may have gone wrong in it or been asked of a network."""
    wrong, contexts = [], []

    def opened(name="run", **options):
        contexts.append(browser.new_context(viewport={"width": 1000, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or wrong.append(request.url))
        page.goto((folder / name / "report.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def middle(box):
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, start, by):
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + by[0], start[1] + by[1], steps=4)
    page.mouse.up()


def transforms(page):
    return [page.locator(f"#{name}").evaluate("image => image.style.transform") for name in ("upper", "under")]


def colours(page, tmp_path):
    page.locator("#stage").screenshot(path=tmp_path / "stage.png")
    return np.asarray(Image.open(tmp_path / "stage.png").convert("RGB")).astype(int)


def test_the_border_is_dragged(opened, tmp_path):
    page = opened()
    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#stage").bounding_box()
    before = colours(page, tmp_path)
    drag(page, middle(page.locator("#divider span").bounding_box()), (box["width"] / 4, 0))
    assert float(page.locator("#slider").input_value()) == pytest.approx(75, abs=1)
    after = colours(page, tmp_path)
    columns = slice(
        int(0.56 * box["width"]), int(0.68 * box["width"])
    )  # between the old border and the new, off the knob
    assert (before[:50, columns] != after[:50, columns]).any()
    far = slice(int(0.85 * box["width"]), None)
    np.testing.assert_array_equal(before[:50, far], after[:50, far])


def test_the_picture_is_moved_and_zoomed_in_step(opened):
    page = opened()
    page.locator("#stage").scroll_into_view_if_needed()
    x, y = middle(page.locator("#stage").bounding_box())
    page.mouse.move(x - 150, y)
    page.mouse.wheel(0, -600)
    page.wait_for_function("document.getElementById('zoom').value === '4.0×'")
    zoomed = transforms(page)
    assert zoomed[0] == zoomed[1]
    drag(page, (x - 150, y - 100), (60, 30))
    moved = transforms(page)
    assert moved[0] == moved[1] != zoomed[0]
    assert page.locator("#slider").input_value() == "50"
    page.get_by_role("button", name="Fit").click()
    assert transforms(page)[0] == "translate(0px, 0px) scale(1)"


def test_everything_can_be_done_by_keyboard(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "stage":
            break
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert transforms(page)[0].endswith("scale(1.5)")
    shifted = transforms(page)[0]
    page.keyboard.press("ArrowLeft")
    assert transforms(page)[0] != shifted
    page.keyboard.press("0")
    assert transforms(page)[0] == "translate(0px, 0px) scale(1)"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "slider"
    page.keyboard.press("ArrowRight")
    assert page.locator("#slider").input_value() == "50.5"
    assert page.locator("#over").evaluate("over => over.style.clipPath") == "inset(0px 49.5% 0px 0px)"


def test_any_two_pictures(opened):
    page = opened()
    assert page.get_by_role("combobox", name="Left", exact=True).locator("option").all_inner_texts() == [
        "One observation", "Bicubic of the mean", "Reconstruction", "Truth",
    ]  # fmt: skip
    page.get_by_role("combobox", name="Left", exact=True).select_option("Truth")
    page.get_by_role("combobox", name="Right", exact=True).select_option("One observation")
    sources = page.locator("#layers img").evaluate_all("images => images.map(image => image.src)")
    assert page.locator("#upper").evaluate("image => image.src") == sources[3]
    assert page.locator("#under").evaluate("image => image.src") == sources[0]
    assert page.locator("#left-facts").inner_text().startswith("Truth")
    assert page.locator("#layers img.chosen").count() == 2


def test_light_dark_and_paper(opened):
    background = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('.chart svg text')).fill"
    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    assert (light.evaluate(background), light.evaluate(ink)) == ("rgb(255, 255, 255)", "rgb(26, 26, 26)")
    assert (dark.evaluate(background), dark.evaluate(ink)) == ("rgb(21, 23, 26)", "rgb(232, 232, 230)")
    dark.emulate_media(media="print")
    assert (dark.evaluate(background), dark.evaluate(ink)) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    assert not dark.locator("#viewer").is_visible()
    assert dark.locator("#layers img").first.is_visible()


@pytest.mark.parametrize("width", [360, 1000, 1600])
def test_the_page_is_not_wider_than_the_window(opened, width):
    page = opened()
    page.set_viewport_size({"width": width, "height": 700})
    page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")  # a frame later, or it times out
    stage = page.locator("#stage").bounding_box()
    assert stage["width"] / stage["height"] == pytest.approx(80 / 64, rel=0.01)


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_the_text_of_charts_is_legible_on_a_phone(opened, name):
    page = opened(name)
    page.set_viewport_size({"width": 360, "height": 700})
    texts = page.locator(".chart svg text").all()
    assert min(text.bounding_box()["height"] for text in texts if text.text_content().strip().isalpha()) > 8


def test_what_a_number_means_is_seen_without_scrolling(opened):
    page = opened()
    assert page.get_by_role("columnheader", name="with each date's change").is_visible()
    box = page.locator(".meaning").first.bounding_box()
    assert box["x"] + box["width"] <= 1000


def test_why_an_observation_is_left_out_is_seen_without_scrolling(opened):
    page = opened()
    box = page.get_by_text("no: 10 % clear").bounding_box()
    assert box["x"] < 600


def test_without_scripts_the_pictures_are_there(opened):
    page = opened(java_script_enabled=False)
    assert not page.locator("#viewer").is_visible()
    assert page.locator("#layers img").count() == 4


def test_from_a_sweep_to_a_job_and_back(opened):
    page = opened("sweep")
    assert page.get_by_role("combobox", name="Right", exact=True).locator("option").all_inner_texts()[2:] == [
        "psf.sigma=0.3",
        "psf.sigma=0.4",
    ]
    page.get_by_role("link", name="0", exact=True).click()
    assert page.get_by_role("heading", level=1).inner_text() == "0"
