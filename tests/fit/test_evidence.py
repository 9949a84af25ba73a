"""What maximising the evidence recovers: of clear, masked, clouded and changing scenes; and the window."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from small_fits import reconstruction, solve, stage
from small_images import power_law

from s2sr.data.simulate import jitter, simulate_scene
from s2sr.fit.aliases import Aliases
from s2sr.fit.evidence import Evidence, Information, clearest, fade, filtered_spectra, sigma_errors
from s2sr.fit.quasi_newton import QuasiNewton
from s2sr.model.scene import Scene
from s2sr.report.metrics import shift_rmse

SIGMA, NOISE, DATES = 0.45, 0.002, 8
ALL = [["shifts", "radiometry", "psf", "noise", "spectrum"]]
EVIDENCE = Evidence()


def simulated(dates: int = DATES, bands: tuple[str, ...] = ("B02", "B03"), spread: float = 0.2, **options) -> Scene:
    """40 x 40 LR pixels per band of its own power-law scene."""
    rng = np.random.default_rng(5)
    margin = math.ceil(3 * spread) + 4 * max(1, *(2 * (band == "B11") for band in bands))
    image = np.concatenate([power_law(40 + 2 * margin, 8, seed=k) for k in range(len(bands))])
    shifts = jitter(dates, spread, rng)
    return simulate_scene(
        image, 8, bands=bands, shifts=shifts, sigma_psf=SIGMA, noise=NOISE, seed=1, margin=margin, **options
    )


def register(scene: Scene, *, evidence: Evidence = EVIDENCE, off: float = 0.02, rounds: int = 4, **options):
    """From shifts that are off by hundredths."""
    fit = stage(
        blocks=ALL,
        optimizer=partial(QuasiNewton, max_iter=8),
        rounds=rounds,
        objective=evidence,
        metric=partial(Information, evidence=evidence),
    )
    start = scene.truth.shifts.numpy() + off * np.random.default_rng(6).normal(size=scene.truth.shifts.shape)
    return solve(reconstruction(scene, fit, levels=(2,), learn=True, gain=True, offset=True, start=start, **options))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return simulated()


@pytest.fixture(scope="module")
def clear(scene):
    return register(scene)


def without(scene: Scene, share: float = 0.13, seed: int = 0) -> Scene:
    """Blocks of 7 pixels masked, others in every frame."""
    valid = scene.valid.clone()
    rng = np.random.default_rng(seed)
    for frame in valid:
        while float((~frame[0]).float().mean()) < share:
            y, x = rng.integers(-6, frame.shape[-1], 2)
            frame[:, max(y, 0) : y + 7, max(x, 0) : x + 7] = False
    return dataclasses.replace(scene, valid=valid, frames=scene.frames * valid)


def assert_sigma(module, tolerance: float = 2.5) -> None:
    """Within `tolerance` standard errors, which are none too large."""
    errors = sigma_errors(module)
    assert float(errors.max()) < 0.15 * SIGMA
    away = (module.field.sigma_psf.detach() / module.field.widths - SIGMA) / errors
    assert float(away.abs().max()) < tolerance, away


def assert_noise(module, tolerance: float = 0.05) -> None:
    torch.testing.assert_close(module.noise.detach().mean(0), torch.full((2,), NOISE), rtol=tolerance, atol=0)


def test_a_clear_scene(scene, clear):
    assert shift_rmse(clear.field.shifts, scene.truth.shifts) < 0.004
    assert_sigma(clear)
    assert_noise(clear)
    torch.testing.assert_close(clear.field.radiometry.gain.detach(), torch.ones(DATES, 2), atol=0.015, rtol=0)
    assert clear.evals < 40


def test_masked_blocks_cost_what_they_held(scene, clear):
    masked = register(without(scene))
    assert_sigma(masked)
    assert_noise(masked)
    best, found = (shift_rmse(module.field.shifts, scene.truth.shifts) for module in (clear, masked))
    assert found < 1.6 * best


def test_what_lies_under_a_mask_does_not_matter(scene):
    masked = without(scene)
    withheld = dataclasses.replace(masked, frames=scene.frames)
    one, other = (register(s, rounds=1) for s in (masked, withheld))
    assert torch.equal(one.trusted, other.trusted)
    assert torch.equal(one.field.shifts, other.field.shifts)
    assert torch.equal(one.field.log_sigma, other.field.log_sigma)


def test_a_cloud_that_no_mask_has_seen_is_left_out(scene):
    frames, cloud = scene.frames.clone(), torch.zeros(40, 40)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    cloud = 0.8 * torch.exp(-(((y - 14) ** 2 + (x - 22) ** 2) / 60))
    frames[3] = frames[3] * (1 - cloud) + 0.5 * cloud
    module = register(dataclasses.replace(scene, frames=frames))
    assert (~module.trusted[3][:, cloud > 0.2]).float().mean() > 0.9
    assert module.trusted[[0, 1, 2, 4, 5, 6, 7]].float().mean() > 0.98
    assert_noise(module, 0.08)
    assert_sigma(module)


def test_change_is_not_taken_for_noise():
    """Two of eight dates differ by a tenth of the scene's contrast, with its spectrum."""
    scene = simulated()
    other = simulate_scene(
        np.concatenate([power_law(50, 8, seed=k) for k in (7, 8)]),
        *(8,),
        bands=("B02", "B03"),
        shifts=scene.truth.shifts.numpy(),
        sigma_psf=SIGMA,
        noise=1e-9,
        margin=5,
    )
    frames = scene.frames.clone()
    frames[[1, 6]] += 0.1 * (other.frames - other.frames.mean((-2, -1), keepdim=True))[[1, 6]]
    module = register(dataclasses.replace(scene, frames=frames))
    change = module.change.detach().mean(1)
    torch.testing.assert_close(change[[1, 6]], torch.full((2,), 0.01), rtol=0.5, atol=0)
    assert float(change[[0, 2, 3, 4, 5, 7]].max()) < 0.002
    assert_noise(module)
    assert_sigma(module)


def changing(slope: float) -> Scene:
    """The scene of `simulated`, a quarter of its contrast of something else beside it in every date, of a slope."""
    scene = simulated()
    frames = scene.frames.clone()
    for t in range(DATES):
        image = np.concatenate([power_law(50, 8, seed=10 * t + k, slope=slope) for k in (7, 8)])
        shifts = scene.truth.shifts[t : t + 1].numpy()
        other = simulate_scene(
            image, 8, bands=("B02", "B03"), shifts=shifts, sigma_psf=SIGMA, noise=1e-9, margin=5
        ).frames[0]
        frames[t] += 0.25 * (other - other.mean((-2, -1), keepdim=True))
    return dataclasses.replace(scene, frames=frames)


def test_the_error_of_sigma_foresees_change_of_another_slope(clear, monkeypatch):
    like, steeper = (register(changing(slope)) for slope in (2.5, 3.5))
    moved = (like.field.sigma_psf - steeper.field.sigma_psf).detach()
    assert float(moved.min()) > 0.1 * SIGMA
    told = [sigma_errors(module) for module in (like, clear)]
    monkeypatch.setattr("s2sr.fit.evidence.CHANGE_SLOPE", 0.0)
    alone = [sigma_errors(module) for module in (like, clear)]
    torch.testing.assert_close(torch.sqrt(told[0].square() - alone[0].square()), moved, rtol=0.4, atol=0)
    torch.testing.assert_close(told[1], alone[1], rtol=0.02, atol=0)  # where nothing changes


def textured(seed: int, row: float = 0.0) -> np.ndarray:
    """[1, y, x] for 50 x 50 LR pixels: power of slope 1.8, standard deviation .05, by exp(row) more at .5 cycles."""
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


@pytest.mark.parametrize(("dates", "bands", "spread"), [(2, ("B02",), 0.3), (5, ("B04", "B11"), 1.2)])
def test_few_dates_wide_shifts_and_a_20_m_band(dates, bands, spread):
    scene = simulated(dates, bands, spread)
    module = register(scene)
    assert shift_rmse(module.field.shifts, scene.truth.shifts) < 0.006
    torch.testing.assert_close(module.noise.detach(), torch.full((dates, len(bands)), NOISE), rtol=0.25, atol=0)
    assert torch.isfinite(sigma_errors(module)).all()


def test_gains_are_found():
    gains = 1 + 0.05 * np.random.default_rng(2).normal(size=(DATES, 2))
    gains /= gains.mean(0)
    module = register(simulated(gains=gains))
    expected = torch.as_tensor(gains, dtype=torch.float32)
    torch.testing.assert_close(module.field.radiometry.gain.detach(), expected, atol=0.015, rtol=0)


def test_a_fixed_psf_stays(scene):
    fit = stage(blocks=ALL, optimizer=QuasiNewton, objective=EVIDENCE, metric=partial(Information, evidence=EVIDENCE))
    module = solve(reconstruction(scene, fit, levels=(2,), start=scene.truth.shifts.numpy()))
    assert module.field.sigma_psf.tolist() == pytest.approx([0.4, 0.4])


def test_the_information_is_the_curvature_of_a_scene_of_the_model(clear):
    """Per band along sigma and spectrum: within a third of what differences of the gradient say."""
    (moments,), objective = EVIDENCE.moments(clear), EVIDENCE(clear)
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
    covariance = moments.model().posterior(moments.clear).covariance.detach()
    curvature, expected = torch.stack(rows), moments.information(covariance)[0, 1:, 1:]
    ratio = torch.linalg.eigvals(torch.linalg.solve(expected, curvature)).real
    assert 0.6 < float(ratio.min()) < float(ratio.max()) < 1.6


def test_the_clearest_part_of_a_large_frame_is_taken():
    valid = torch.ones(2, 1, 70, 40, dtype=torch.bool)
    assert [valid[clearest(valid, n)].shape[2:] for n in (128, 40, 30)] == [(70, 40), (40, 40), (30, 30)]
    valid[:, :, :40] = False
    assert clearest(valid, 30)[2:] == (slice(35, 65), slice(5, 35))


def windowed(frames: torch.Tensor, shifts: torch.Tensor, taper: float) -> torch.Tensor:
    rows, columns = (fade(frames.shape[-1], d.double(), taper) for d in shifts.T)
    return filtered_spectra(frames, (rows[:, :, None] * columns[:, None])[:, None])


def test_high_pass_and_window_leave_the_middle_of_the_spectrum():
    """A wave well inside the taper keeps its power."""
    n = 96
    wave = torch.cos(2 * math.pi * 12 / n * torch.arange(n, dtype=torch.float64)).expand(n, n)[None, None]
    still = torch.zeros(1, 2)
    spectra = windowed(wave, still, 5)[0, 0]
    transmitted = 1 - math.cos(math.pi * 12 / n) ** 2
    total = (spectra.abs().square() * Aliases.of((n, n)).counts).sum() / transmitted**2
    assert float(total) == pytest.approx(float(wave.square().sum()), rel=0.05)


def test_the_window_moves_with_the_scene():
    """Else frames of the same ground would differ at their borders, and the difference pass for noise."""
    n, d = 64, torch.tensor([[0.3, -0.2], [-0.3, 0.2]])
    x = torch.arange(n, dtype=torch.float64) + 0.5
    wave = [torch.outer(*(torch.cos(2 * math.pi * 9.3 / n * (x - shift)) for shift in pair)) for pair in d.double()]
    rows, columns = torch.fft.fftfreq(n), torch.fft.rfftfreq(n)
    spectra = windowed(torch.stack(wave)[:, None], d, 20)[:, 0]
    back = [torch.exp(2j * math.pi * (rows[:, None] * dy + columns * dx)) for dy, dx in d.double()]
    one, other = (y * phase for y, phase in zip(spectra, back, strict=True))
    assert float((one - other).abs().square().sum() / one.abs().square().sum()) < 1e-5


def test_a_20_m_band_that_repeats_its_samples_is_seen_on_its_own_grid():
    """Noise and sigma of what was measured: the repetitions are no measurements."""
    scene = simulated(bands=("B02", "B11"))
    measured = scene.frames[:, 1, ::2, ::2]
    repeats = measured.repeat_interleave(2, 1).repeat_interleave(2, 2)
    scene = dataclasses.replace(scene, frames=torch.stack((scene.frames[:, 0], repeats), 1))
    module = register(scene, samplings=scene.samplings)
    assert [s.pitch for s in module.field.samplings] == [1, 2]
    assert shift_rmse(module.field.shifts, scene.truth.shifts) < 0.006
    assert_noise(module, 0.1)
    away = (module.field.sigma_psf.detach() / module.field.widths - SIGMA) / sigma_errors(module)
    assert float(away.abs().max()) < 2.5, away


def test_the_adjoint_of_the_spectra(scene, clear):
    """Over the frequencies that real frames have, those of both signs."""
    (moments,) = EVIDENCE.moments(clear)
    torch.manual_seed(0)
    frames = torch.randn(scene.frames.shape, dtype=torch.float64)
    spectra = torch.fft.rfft2(torch.randn(frames.shape, dtype=torch.float64), norm="ortho")
    seen = (moments.spectra(frames) * spectra.conj()).real * moments.aliases.counts
    assert float((frames * moments.adjoint(spectra)).sum()) == pytest.approx(float(seen.sum()), rel=1e-10)


def test_what_is_filled_in_is_the_conditional_mean(scene):
    """After enough conjugate gradients nothing contradicts the others: C^-1 Y is 0 there, but for a hundredth."""
    masked = register(without(scene), evidence=Evidence(fill=40), rounds=1)
    (moments,) = Evidence(fill=40).moments(masked)
    trusted = masked.trusted.clone()
    moments.completed()
    precision = moments.model().innovation(torch.float64)
    filled = masked.filled[moments.sampling].double()
    left = moments.adjoint(precision(moments.spectra(filled))).detach()
    began = moments.adjoint(precision(moments.spectra(torch.where(trusted, filled, 0.2)))).detach()
    assert float(left[~trusted].square().mean()) < 1e-4 * float(began[~trusted].square().mean())
