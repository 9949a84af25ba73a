import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from s2sr.report.charts import progress, swept_scores
from s2sr.report.figures import save
from s2sr.report.jobs import Job


def job(number, *, sigma, metrics, key="psf.sigma"):
    return Job(Path(str(number)), {key: str(sigma)}, metrics)


def curve(sigmas, **more):
    """Jobs whose held-out error is least at .45 and whose edge contrast keeps rising."""
    return [
        job(n, sigma=s, metrics={"edge_contrast": s, "holdout_rmse": 0.01 + (s - 0.45) ** 2, **more})
        for n, s in enumerate(sigmas)
    ]


def stars(axes):
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines if line.get_marker() == "*"]


def upright(axes):
    return sorted({float(line.get_xdata()[0]) for line in axes.lines if list(line.get_ydata()) == [0, 1]})


def test_both_optima_are_marked_through_both_panels(tmp_path):
    none = job(9, sigma=0.2, metrics={"edge_contrast": math.nan, "holdout_rmse": None})
    figure = swept_scores([none, *curve([0.6, 0.3, 0.4, 0.5])], ["psf.sigma"])
    heldout, edge = figure.axes
    assert heldout.get_title(loc="left") == "held-out error, reflectance"
    assert edge.get_title(loc="left") == "edge contrast, 1/px"
    assert stars(heldout) == [(0.4, pytest.approx(0.0125))]
    assert stars(edge) == [(0.6, 0.6)]
    assert upright(heldout) == upright(edge) == [0.4, 0.6]
    assert heldout.get_title(loc="right") == "least 0.01250 at psf.sigma=0.4"
    assert edge.get_title(loc="right") == "sharpest 0.600 at psf.sigma=0.6"
    line = next(line for line in edge.lines if len(line.get_xdata()) == 4)
    np.testing.assert_allclose(line.get_xdata(), [0.3, 0.4, 0.5, 0.6])
    save(figure, tmp_path / "sweep.png")


def test_a_sigma_by_the_evidence_stands_where_it_was_found():
    found = {"psf_sigma": 0.44, "psf_sigma_B02_std": 0.03, "psf_sigma_B03_std": 0.04, "edge_contrast": 0.45}
    jobs = [job(n, sigma=s, metrics={"psf_sigma": s, "edge_contrast": s}, key="psf") for n, s in enumerate((0.3, 0.5))]
    (axes,) = swept_scores([*jobs, job(2, sigma="auto", metrics=found, key="psf")], ["psf"]).axes
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((0.44 - 0.025, 0.44 + 0.025))  # hypot(.03, .04) / 2
    assert "by the evidence 0.440 ± 0.025" in [text.get_text() for text in axes.texts]
    assert sorted(axes.lines[0].get_xdata()) == pytest.approx([0.3, 0.44, 0.5])


def test_names_are_not_joined_by_a_line():
    jobs = [job(n, sigma=s, metrics={"psnr": 20.0 + n}, key="strategy") for n, s in enumerate(("lbfgs", "adam"))]
    (axes,) = swept_scores(jobs, ["strategy"]).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["lbfgs", "adam"]
    assert axes.lines[0].get_linestyle() == "None"


@pytest.mark.parametrize(("swept", "scale"), [((0.01, 0.1, 1), "log"), ((0, 0.1, 1), "linear"), ((1, 2, 3), "linear")])
def test_values_of_many_sizes_are_spread_and_a_zero_has_its_place(swept, scale):
    figure = swept_scores(curve(swept), ["psf.sigma"])
    for axes in figure.axes:
        assert axes.get_xscale() == scale
        left, right = axes.get_xlim()
        assert left <= min(swept) < max(swept) <= right


def test_other_keys_make_lines():
    jobs = [
        Job(Path(f"{n}{s}"), {"strategy": s, "seed": str(n)}, {"psnr": 20.0 + n}) for s in ("a", "b") for n in range(3)
    ]
    figure = swept_scores(jobs, ["strategy", "seed"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["strategy=a", "strategy=b"]


def test_long_values_stay_within_the_figure_and_beside_each_other():
    roots = [f"/data/scenes/of_this_year/{name}_and_more_that_makes_it_long" for name in ("apulia", "belgium", "sf")]
    jobs = [
        Job(Path(str(n)), {"strategy": s, "trainer.root": root}, {"holdout_rmse": 0.01 + 0.001 * n, "psnr": 20.0})
        for n, (s, root) in enumerate((s, root) for s in ("bayes", "lbfgs_adam") for root in roots)
    ]
    figure = swept_scores(jobs, ["strategy", "trainer.root"])
    pen = FigureCanvasAgg(figure).get_renderer()
    figure.draw(pen)
    page, (legend,) = figure.bbox, figure.legends
    box = legend.get_window_extent(pen)
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert len(legend.get_texts()) == 3
    top = figure.axes[0]
    left, right = (text.get_window_extent(pen) for text in (top._left_title, top._right_title))
    assert left.x1 < right.x0
    assert left.y1 < box.y0
    assert "root=apulia_and" in top.get_title(loc="right"), "what tells it from the others"


def test_runs_that_other_samples_judge_are_not_compared():
    """Sigma is swept against the crop; each crop has its own best, along the key by which scores can be compared."""
    scores = {("16", "0.3"): 0.010, ("16", "0.5"): 0.012, ("20", "0.3"): 0.030, ("20", "0.5"): 0.020}
    jobs = [
        Job(
            Path(f"{crop}{sigma}"),
            {"crop": crop, "psf.sigma": sigma},
            {"holdout_rmse": y, "holdout_rmse_bicubic": int(crop) / 100},
        )
        for (crop, sigma), y in scores.items()
    ]
    (axes,) = swept_scores(jobs, ["crop", "psf.sigma"]).axes
    assert axes.get_xlabel().startswith("psf.sigma")
    assert sorted(stars(axes)) == [(0.3, 0.010), (0.5, 0.020)]
    assert axes.get_title(loc="right") == "least for each crop"
    baselines = {tuple(line.get_ydata()) for line in axes.lines if line.get_marker() == "_"}
    assert baselines == {(0.16, 0.16), (0.2, 0.2)}
    (alone,) = swept_scores([jobs[0], jobs[2]], ["crop"]).axes
    assert stars(alone) == []


def test_more_lines_than_colours_differ_by_their_markers():
    jobs = [Job(Path(f"{n}{s}"), {"tv_delta": str(n), "noise": str(s)}, {"psnr": s}) for s in range(10) for n in (1, 2)]
    (axes,) = swept_scores(jobs, ["tv_delta", "noise"]).axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines if not line.get_label().startswith("_")}
    assert len(looks) == 10


@pytest.mark.parametrize("metrics", [{}, {"psnr": None}, {"edge_contrast": math.nan}])
def test_nothing_to_draw(metrics, tmp_path):
    save(swept_scores([job(0, sigma=0.3, metrics=metrics)], []), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 0


def test_progress_of_a_run():
    history = [{"evals": str(n), "fit/loss": str(1e4 / n)} for n in range(1, 100)]
    history += [
        {
            "evals": "50",
            "level": "first 2x",
            "heldout/holdout_rmse": "0.02",
            "heldout/holdout_rmse_temporal_mean": "0.03",
        },
        {
            "evals": "99",
            "level": "first 4x",
            "heldout/holdout_rmse": "0.01",
            "heldout/holdout_rmse_temporal_mean": "nan",
        },
    ]
    objective, heldout = progress(history).axes
    assert objective.get_yscale() == "log"
    assert {text.get_text() for text in objective.texts} == {"first 2x", "first 4x"}
    assert [len(line.get_xdata()) for line in objective.lines[:2]] == [50, 49], "a line for each level"
    np.testing.assert_allclose(heldout.lines[0].get_xydata(), [[50, 0.02], [99, 0.01]])
    np.testing.assert_allclose(heldout.lines[1].get_xydata(), [[50, 0.03]])
    assert [text.get_text() for text in heldout.texts] == ["temporal mean"]
    assert objective.get_xlim() == heldout.get_xlim()
