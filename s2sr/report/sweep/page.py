"""report.html and README.md of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from s2sr.report import page
from s2sr.report.charts import MARKED
from s2sr.report.glossary import METRICS
from s2sr.report.jobs import Job, alike, best, judging
from s2sr.report.page import Picture
from s2sr.report.run_page import command, settings_of

COLUMNS = (
    *("holdout_rmse", "holdout_median", "psnr", "ssim", "edge_contrast", "frc_resolution_m"),
    *("psf_sigma", "shift_rmse_px", "evals", "runtime_s"),
)


def write_sweep_page(
    folder: Path, jobs: Sequence[Job], keys: Sequence[str], layers: Sequence[Picture], chart: Figure | None
) -> None:
    """Writes report.html and README.md; a sweep whose jobs all failed has neither layers nor chart."""
    metrics = {key: METRICS[key] for key in COLUMNS if any(job.number(key) is not None for job in jobs)}
    caption = "The scores against the swept value; stars mark the best"
    facts: dict[str, Any] = {
        "title": folder.resolve().name,
        "jobs": jobs,
        "keys": keys,
        "judging": judging(keys),
        "metrics": metrics,
        "chosen": _chosen([job for job in jobs if not job.error], keys),
        "command": command(settings_of(folder / "multirun.yaml"), "sweep.py -m"),
        "pictures": layers,
    }
    page.write("sweep.md", folder / "README.md", **facts)
    charts = [(caption, page.svg(chart, "scores", caption))] if chart else []
    files = page.listed(folder)  # after README.md
    page.write("sweep.html", folder / "report.html", **facts, charts=charts, files=files)


def _chosen(jobs: Sequence[Job], keys: Sequence[str]) -> list[str]:
    """One sentence for each score that has a best, and for each run that found sigma by the evidence.

    Where other samples judge other runs, how often each value of the other keys is the best.
    """
    sentences = []
    own = judging(keys)
    others = [key for key in keys if key not in own]
    for key, (word, better) in {**MARKED, "holdout_median": ("least", "lower")}.items():
        winners = [job for members in alike(jobs, keys) if (job := best(members, key, better))]
        metric = METRICS[key]
        if own and winners:
            counts = Counter(job.label(others) for job in winners).most_common()
            often = ", ".join(f"at {label} in {count} of {len(winners)}" for label, count in counts)
            sentences.append(f"{metric.label}, for each {', '.join(own)} by itself: {word} {often}")
        elif winners:
            value = f"{metric.text(winners[0].metrics[key])} {metric.unit}".strip()
            sentences.append(f"{metric.label}: {word} at {winners[0].label(keys)} ({value})")
    for job in jobs:
        if found := job.evidence():
            sigma, error = found
            sentences.append(f"by the evidence, {job.label(keys)} found sigma {sigma:.3f} ± {error:.3f} px")
    return sentences
