"""The meaning of every number in metrics.json and of every file: one table each, for reports and documentation.

A key of metrics.json is a key of `METRICS`, with suffixes for a baseline (or the product with each date's change), a
band, and `std` for a standard error: `holdout_rmse_wiener_B02`, `psf_sigma_B04_std`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GROUPS = {
    "heldout": "Held-out error",
    "fidelity": "Fidelity to the truth",
    "sharpness": "Sharpness",
    "resolution": "Resolution",
    "consistency": "Consistency with the observations",
    "uncertainty": "Uncertainty",
    "psf": "Point-spread function",
    "shifts": "Shifts",
    "run": "The run",
}
PANELS = {  # sections of the dashboard
    "fit": "what is minimised and its parts, in nats; the TV weight; splats per LR pixel (scale)",
    "heldout": "error on pixels that the fit never saw, and the temporal mean's; one chart of it and of edge contrast",
    "fidelity": "against the truth, where the scene is simulated, at one scale for all levels",
    "sharpness": "beside the bicubic's; rises with ringing, too: believe it where the held-out error agrees",
    "shifts": "where the observations lie, in LR pixels of 10 m; a table of them",
    "psf": "sigma of each band, pixels of its own grid",
    "pictures": "as each level ends, under the stretch of the temporal mean",
}
RUN = "\n".join(
    (
        "A super-resolution of Sentinel-2 observations. x-axis: evaluations of the objective. Panels:",
        *(f"* {section}: {text}" for section, text in PANELS.items()),
        "The summary holds the final numbers; report.html in the run folder says what each means.",
    )
)
SWEEP = (
    "The scores of a sweep against the swept value, one line for each value of the other keys; beside them pictures of "
    "the scores and of all products under one stretch, and the table sweep/runs. Edge contrast rises with ringing: "
    "believe the held-out error and the PSNR. The runs themselves are in the same group."
)
NOTES = {"train": RUN, "sweep": RUN, "collate": SWEEP}  # by type of job: what the dashboard says of a run
BASELINES = {
    "with_change": "with each date's change",
    "temporal_mean": "temporal mean",
    "bicubic": "bicubic of the mean",
    "wiener": "Wiener",
}


@dataclass(frozen=True)
class Metric:
    group: str  # of GROUPS
    label: str
    unit: str  # empty: none
    sentence: str
    digits: str = ".4g"  # format

    def text(self, value: Any) -> str:
        """The value as displayed, without its unit; a dash if there is none."""
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return "–"
        return format(value, self.digits) if isinstance(value, int | float) else str(value)


METRICS = {
    "holdout_rmse": Metric(
        "heldout",
        "held-out error",
        "reflectance",
        "Root mean square difference between withheld samples, which the fit never saw, and the model's prediction. "
        "Judges a fit without a truth: invented detail raises it.",
        ".5f",
    ),
    "holdout_median": Metric(
        "heldout",
        "median held-out error",
        "reflectance",
        "Median absolute difference there: insensitive to the few samples that changed or lie at a cloud's edge.",
        ".5f",
    ),
    "holdout_dates_rmse": Metric(
        "heldout",
        "error on held-out dates",
        "reflectance",
        "The same for whole dates that the fit never saw, registered on half of their pixels and judged on the rest.",
        ".5f",
    ),
    "holdout_dates_median": Metric(
        "heldout", "median error on held-out dates", "reflectance", "Median absolute difference there.", ".5f"
    ),
    "psnr": Metric(
        "fidelity",
        "PSNR",
        "dB",
        "Peak signal-to-noise ratio against the truth, at 4x or the product's scale if lower, brightness fitted.",
        ".2f",
    ),
    "ssim": Metric("fidelity", "SSIM", "", "Structural similarity with the truth; 1 if identical.", ".3f"),
    "edge_contrast": Metric(
        "sharpness",
        "edge contrast",
        "1/px",
        "Gradient of the steepest edges relative to the scene's contrast, per LR pixel. Ringing raises it as detail "
        "does: read it beside the held-out error.",
        ".3f",
    ),
    "gradient_energy": Metric(
        "sharpness", "gradient energy", "1/px²", "Mean squared gradient over the squared contrast.", ".3f"
    ),
    "laplacian_var": Metric(
        "sharpness",
        "Laplacian variance",
        "1/px⁴",
        "Variance of the Laplacian over the squared contrast; noise and ringing raise it most.",
        ".3f",
    ),
    "detail_limit_px": Metric(
        "resolution",
        "detail limit",
        "px",
        "Half the period of the finest pattern of which the sensor still passes 5 % of the contrast. Finer detail in "
        "the product is interpolation and prior.",
        ".2f",
    ),
    "frc_resolution_m": Metric(
        "resolution",
        "resolved detail",
        "m",
        "Half the period of the finest pattern in which product and truth correlate by more than 1/2, estimated from "
        "two halves of the dates, each compared with the other's observations.",
        ".1f",
    ),
    "frc_frequency": Metric(
        "resolution", "resolved frequency", "cycles/px", "The same as a frequency, per LR pixel.", ".3f"
    ),
    "truth_resolution_m": Metric(
        "resolution",
        "resolved detail by the truth",
        "m",
        "Half the period of the finest pattern in which product and truth correlate by more than 1/2.",
        ".1f",
    ),
    "truth_frequency": Metric(
        "resolution",
        "resolved frequency by the truth",
        "cycles/px",
        "The same as a frequency, per LR pixel.",
        ".3f",
    ),
    "forecast_frequency": Metric(
        "resolution",
        "forecast frequency",
        "cycles/px",
        "Finest frequency that these shifts, noise and PSF can resolve, computed before any fit.",
        ".3f",
    ),
    "forecast_resolution_m": Metric(
        "resolution", "forecast detail", "m", "Half the period at the forecast frequency.", ".1f"
    ),
    "residual_rms": Metric(
        "consistency",
        "residual",
        "reflectance",
        "Root mean square of predicted minus observed reflectance over the samples that were fitted.",
        ".5f",
    ),
    "consistency_bias": Metric(
        "consistency",
        "bias",
        "reflectance",
        "Mean of predicted minus observed reflectance: positive where the product is too bright.",
        "+.5f",
    ),
    "consistency_rms": Metric(
        "consistency",
        "normalised residual",
        "noise std",
        "Root mean square residual over the noise: 1 for noise alone, more for change or a wrong model.",
        ".2f",
    ),
    "mean_bias": Metric(
        "consistency",
        "brightness",
        "reflectance",
        "Mean reflectance of the product minus that of the temporal mean.",
        "+.5f",
    ),
    "ndvi_bias": Metric(
        "consistency", "NDVI bias", "", "Mean NDVI predicted from the product minus that of the observations.", "+.4f"
    ),
    "ndvi_rmse": Metric(
        "consistency",
        "NDVI error",
        "",
        "Root mean square of the same difference, which includes the noise of both bands.",
        ".4f",
    ),
    "std_mean": Metric(
        "uncertainty", "mean standard deviation", "reflectance", "Mean of sr_std.tif over pixels and bands."
    ),
    **{
        f"coverage_{percent}{suffix}": Metric(
            "uncertainty",
            f"{percent} % interval{where}",
            "",
            f"Fraction of the truth within {k} of the product{of}; nominally 0.{percent}.",
            ".3f",
        )
        for percent, k in ((68, "one standard deviation"), (95, "1.96 standard deviations"))
        for suffix, where, of in (
            ("", "", ""),
            *(
                (f"_q{q}", f", contrast quarter {q}", f", in quarter {q} of local contrast (4: most)")
                for q in range(1, 5)
            ),
        )
    },
    "psf_sigma": Metric(
        "psf",
        "PSF sigma",
        "px",
        "Standard deviation of the Gaussian part of the point-spread function, in pixels of the band's own grid.",
        ".3f",
    ),
    "shift_rmse_px": Metric("shifts", "shift error", "px", "Root mean square error of the estimated shifts.", ".4f"),
    "forecast_shift_px": Metric(
        "shifts",
        "forecast shift error",
        "px",
        "Lowest standard error that these observations allow (Cramér-Rao bound).",
        ".4f",
    ),
    "n_obs": Metric("run", "observations", "", "Acquisitions that were fitted.", "d"),
    "scale": Metric("run", "scale", "", "Product pixels per LR pixel (10 m) and axis.", "d"),
    "strategy": Metric("run", "strategy", "", "The solver, see conf/strategy."),
    "evals": Metric("run", "evaluations", "", "Evaluations of the objective and its gradient.", "d"),
    "runtime_s": Metric("run", "time", "s", "From reading the observations to writing the product.", ".1f"),
    "peak_memory_mb": Metric("run", "peak memory", "MB", "Peak memory of the whole process.", ".0f"),
}

FILES = {  # what lies beside report.html, by name or pattern
    "README.md": "summary of the sweep: the command and the table",
    "sweep.csv": "overrides and metrics of all jobs",
    "sr.tif": "the product: Cloud-Optimized GeoTIFF, float32 reflectance",
    "sr_std.tif": "its standard deviation, reflectance",
    "sr_count.tif": "number of clear observations per pixel",
    "sr_[0-9]*.tif": "the product with the reflectance of that date",
    "sr.png": "the product as a picture",
    "comparison.png": "the product beside other pictures",
    "sweep.png": "scores against the swept value",
    "pictures": "the product of every job, under one stretch",
    "uncertainty.png": "how certain the product is, pixel by pixel",
    "frc.png": "which frequencies are real, from two halves of the dates",
    "consistency.png": "the product, put through the sensor model, against the observations",
    "metrics.json": "all scores",
    "metrics.csv": "scores during the fit, against evaluations",
    "shifts.csv": "per observation: shift, gain, offset, noise, weight, used or why not",
    "observation.tif": "the clearest observation, on the LR grid",
    "mean.tif": "the temporal mean, on the LR grid",
    "truth.tif": "the truth, averaged to the product's pixels",
    "train.log": "the run's messages",
    "checkpoints": "one per stage and level, and the last, where a resumed run continues",
    "wandb": "the dashboard's run: `wandb leet wandb` shows it, `wandb sync` uploads it",
    ".hydra": "the composed configuration",
}


@dataclass(frozen=True)
class Row:
    """A metric of one run: the product's value beside those of the baselines, over all bands and for each."""

    key: str
    metric: Metric
    values: dict[str, Any] = field(default_factory=dict)  # by baseline; "": the product
    errors: dict[str, float] = field(default_factory=dict)  # standard errors of the product's, by band; "": of all
    by_band: dict[str, dict[str, Any]] = field(default_factory=dict)  # by baseline, then by band


def rows(metrics: Mapping[str, Any], bands: Sequence[str]) -> list[Row]:
    """The metrics that are in `METRICS`, in its order; other keys are skipped."""
    found = {key: Row(key, metric) for key, metric in METRICS.items()}
    for name, value in metrics.items():
        parts = parse(name, bands)
        if parts is None or value is None:
            continue
        key, baseline, band, std = parts
        if std:
            found[key].errors[band] = value
        elif band:
            found[key].by_band.setdefault(baseline, {})[band] = value
        else:
            found[key].values[baseline] = value
    return [row for row in found.values() if row.values or row.by_band]


def parse(name: str, bands: Sequence[str] = ()) -> tuple[str, str, str, bool] | None:
    """(key of METRICS, baseline, band, whether it is a standard error) of a key of metrics.json; None if unknown."""
    key, baseline, band = ("|".join(map(re.escape, names)) for names in (METRICS, BASELINES, bands))
    match = re.fullmatch(f"({key})(?:_({baseline}))?(?:_({band or '(?!)'}))?(_std)?", name)
    return (match[1], match[2] or "", match[3] or "", bool(match[4])) if match else None
