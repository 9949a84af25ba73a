"""The Fisher information against differences and the dense normal distribution; the error of sigma against errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_frames import SCALE, SHIFTS, covariance, moments
from small_registrations import DATES, EVIDENCE, NOISE, SIGMA, changing, register, simulated

from s2sr.data.simulate import jitter, simulate_scene
from s2sr.fit.evidence import Evidence
from s2sr.fit.evidence.information import of_noise, of_scene, shift_information, sigma_errors, through_change
from s2sr.fit.module import Reconstruction
from s2sr.model.scene import Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return simulated()


@pytest.fixture(scope="module")
def clear(scene):
    return register(scene)


def test_the_information_is_the_curvature_of_a_scene_of_the_model(clear):
    """Per band, along the spectrum, it is within a third of what differences of the gradient say."""
    (patch,), objective = EVIDENCE.patches(clear), EVIDENCE(clear)
    for parameter in clear.parameters():
        parameter.requires_grad_(True)

    def gradient() -> torch.Tensor:
        found = torch.autograd.grad(sum(objective().values()), clear.spectrum.coefficients)
        return found[0][0].double()

    step, rows = 0.02, []
    for k in range(clear.spectrum.coefficients.shape[1]):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                clear.spectrum.coefficients[0, k] += sign * step
            ends.append(gradient())
            with torch.no_grad():
                clear.spectrum.coefficients[0, k] -= sign * step
        rows.append((ends[0] - ends[1]) / (2 * step))
    with torch.no_grad():
        expected = of_scene(patch, patch.model().posterior(patch.clear), EVIDENCE.spread)[0, 1:, 1:]
    ratio = torch.linalg.eigvals(torch.linalg.solve(expected, torch.stack(rows))).real
    assert 0.6 < float(ratio.min()) < float(ratio.max()) < 1.6


@pytest.fixture(scope="module", params=[2.5, 3.5])
def changed(request) -> tuple[Reconstruction, float]:
    """A scene whose change has the scene's slope, or another; and that slope."""
    return register(changing(request.param)), request.param


def test_sigma_and_the_slope_of_change_are_found(changed):
    """With the scene's spectrum for that of change, sigma would be a tenth smaller where change is steeper."""
    module, slope = changed
    errors = sigma_errors(module)
    assert float(errors.max()) < 0.1 * SIGMA
    assert float(((module.field.sigma_psf.detach() - SIGMA) / errors).abs().max()) < 2
    torch.testing.assert_close(module.change_slope.detach(), torch.full((2,), slope), atol=0.25, rtol=0)


def test_change_is_seen_through_the_psf_but_tells_little_of_it(changed, clear):
    """The Gaussian acts upon the spectrum of change nearly as another slope does."""
    module, _ = changed
    (patch,) = EVIDENCE.patches(module)
    model = patch.model()
    posterior = model.posterior(patch.clear)
    more, alone = through_change(patch, model, posterior), of_scene(patch, posterior, EVIDENCE.spread)[:, 0, 0]
    share = (more * module.field.sigma_psf.double().square().square() / alone).detach()
    assert 0 < float(share.min()) < float(share.max()) < 0.5


def test_the_information_on_noise_and_change_is_the_curvature_where_places_change(changed):
    """Per band, it is within a half of what differences of the gradient say."""
    module, _ = changed
    (patch,), objective = EVIDENCE.patches(module), EVIDENCE(module)
    group = [module.log_noise, module.log_change, module.change_slope]
    for parameter in module.parameters():
        parameter.requires_grad_(True)

    def gradient() -> torch.Tensor:
        found = torch.autograd.grad(sum(objective().values()), group)
        return torch.cat([g[..., 0].double().view(-1) for g in found])

    rows = []
    for p in group:
        for k in range(0, p.numel(), 2):  # of the first band
            ends = []
            for step in (0.02, -0.04):
                with torch.no_grad():
                    p.view(-1)[k] += step
                ends.append(gradient())
            with torch.no_grad():
                p.view(-1)[k] += 0.02
            rows.append((ends[0] - ends[1]) / 0.04)
    with torch.no_grad():
        model = patch.model()
        expected = of_noise(patch, model, model.precision(model.posterior(patch.clear)))[0]
    ratio = torch.linalg.eigvals(torch.linalg.solve(expected, torch.stack(rows))).real
    assert 0.5 < float(ratio.min()) < float(ratio.max()) < 2, ratio


def textured(seed: int, row: float = 0.0) -> np.ndarray:
    """[1, y, x] an image for 50 x 50 LR pixels whose power has a slope of 1.8, and exp(row) times as much at .5 cycles.

    Its standard deviation is .05.
    """
    rng = np.random.default_rng(seed)
    f = np.hypot(*np.meshgrid(*[np.fft.fftfreq(400, 1 / 8)] * 2)).clip(1e-9)
    power = f**-1.8 * np.exp(row * np.exp(-(np.log(f / 0.5) ** 2) / (2 * 0.25**2)))
    image = np.fft.ifft2(np.fft.fft2(rng.normal(size=f.shape)) * np.sqrt(power) * (f > 1e-3)).real
    return 0.2 + 0.05 * image[None] / image.std()


def test_rows_of_half_the_power_more_are_within_what_sigma_is_sure_of():
    away = []
    for seed in range(3):
        shifts = jitter(DATES, 0.2, np.random.default_rng(seed))
        image = textured(seed, 0.5)
        options = {"bands": ("B02",), "shifts": shifts, "sigma_psf": SIGMA, "noise": NOISE, "seed": seed, "margin": 5}
        module = register(simulate_scene(image, 8, **options))
        away.append(float((module.field.sigma_psf.detach() - SIGMA) / sigma_errors(module)))
    assert np.sqrt(np.mean(np.square(away))) < 1.5, away


def test_a_psf_that_is_known_beforehand_stays_nearly_so(scene, clear):
    known = Evidence(spread=0.02)
    module = register(scene, evidence=known)
    relative = sigma_errors(module, known) / module.field.sigma_psf.detach()
    assert 0.015 < float(relative.min()) < float(relative.max()) < 0.02
    start = module.field.log_sigma_start
    away, further = ((m.field.log_sigma.detach() - start).abs() for m in (module, clear))
    assert (away < 0.04).all()
    assert (away < further).all()


def test_the_information_on_shifts_is_that_of_the_dense_normal_distribution():
    """That is 1/2 tr(C^-1 dC C^-1 dC), with dC by differences."""
    inverse, e = torch.linalg.inv(covariance()), 1e-4
    slopes = []
    for axis in (0, 1):
        for t in range(3):
            step = torch.zeros_like(SHIFTS)
            step[t, axis] = e
            slopes.append(inverse @ (covariance(SHIFTS + step) - covariance(SHIFTS - step)) / (2 * e))
    expected = torch.tensor([[float((a * b.T).sum()) / 2 for b in slopes] for a in slopes], dtype=torch.float64)
    found = shift_information(moments(SCALE))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.max()))
    torch.testing.assert_close(
        found @ torch.ones(6, dtype=torch.float64) / found.max(), torch.zeros(6).double(), atol=1e-9, rtol=0
    )
