"""Which samples of a band are measurements, and that the model puts their detectors where they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from s2sr.data.geotiff import SceneFolder
from s2sr.data.simulate import margin_for, observe
from s2sr.model.field import SplatField
from s2sr.model.grid import Grid
from s2sr.model.psf import PSF
from s2sr.model.sampling import Sampling, samplings
from s2sr.model.scene import Observation, Scene

BANDS = ("B04", "B11")


def frames_with_blocks(row: int, column: int, shape: tuple[int, int] = (12, 15)) -> torch.Tensor:
    """[3, 2, y, x] noise; in the second band it is constant in every block of 2 x 2 from a row and a column on."""
    frames = torch.rand(3, 2, *shape, generator=torch.Generator().manual_seed(0))
    coarse = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(1))
    blocks = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    frames[:, 1] = blocks[:, 2 - row : 2 - row + shape[0], 2 - column : 2 - column + shape[1]]
    return frames


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("column", [0, 1])
def test_repeated_samples_are_found_wherever_their_blocks_begin(row, column):
    frames = frames_with_blocks(row, column)
    valid = torch.ones_like(frames, dtype=torch.bool)
    assert samplings(frames, valid, BANDS) == (Sampling(), Sampling(2, row, column))
    assert samplings(frames, valid, ("B04", "B03"))[1] == Sampling()  # a 10 m detector repeats nothing
    valid[0, 1, 4:7, 3:8] = False  # a mask that cuts blocks
    assert samplings(frames * valid, valid, BANDS)[1] == Sampling(2, row, column)
    frames[2, 1, 6, 6] += 1e-4  # a composite of two dates
    assert samplings(frames, torch.ones_like(valid), BANDS)[1] == Sampling(2, row, column)
    frames[:, 1] += 1e-4 * torch.rand(3, *frames.shape[2:])
    assert samplings(frames, torch.ones_like(valid), BANDS)[1] == Sampling()


def test_nothing_valid_repeats_nothing():
    frames = frames_with_blocks(0, 0)
    assert samplings(frames, torch.zeros_like(frames, dtype=torch.bool), BANDS) == (Sampling(), Sampling())


@pytest.mark.parametrize("sampling", [Sampling(2), Sampling(2, 1, 0), Sampling(2, 1, 1)])
def test_repeating_the_measurements_makes_the_file(sampling):
    frames = frames_with_blocks(sampling.row, sampling.column)[:, 1]
    alone = torch.where(sampling.measured(frames.shape[1:]), frames, torch.nan)
    whole = (slice(None), slice(sampling.row, None), slice(sampling.column, None))
    torch.testing.assert_close(sampling.repeat(alone)[whole], frames[whole], rtol=0, atol=0)
    assert sampling.measured(frames.shape[1:]).sum() * 4 <= frames[0].numel() + 2 * sum(frames.shape[1:])


@pytest.mark.parametrize("sampling", [Sampling(2), Sampling(2, 1, 0)])
def test_the_detector_of_a_repeated_sample_lies_over_its_whole_block(sampling):
    """Compared with the simulator's detectors, whose centres lie half an LR pixel further than those of 10 m."""
    n, scale, sigma = 14, 16, 0.4
    grid, shifts = Grid(None, (1, 0, 0, 0, -1, 0), (n, n)), torch.tensor([[0.3, -0.2], [-0.3, 0.2]])
    field = SplatField(grid, ("B11",), scale=2, psf=PSF(sigma), shifts=shifts, samplings=[sampling])
    with torch.no_grad():
        field.weights.normal_(generator=torch.Generator().manual_seed(0))
    detector = {"shifts": shifts.numpy() - 0.5, "sigma": np.array([2 * sigma]), "widths": np.array([2.0])}
    margin = margin_for(**detector)
    around = Grid(None, (1, 0, -margin, 0, -1, margin), (n + 2 * margin, n + 2 * margin))
    seen = observe(field.render(around.scaled(scale)).numpy(), scale, **detector, margin=margin)
    predicted = field().detach().numpy()
    away = (predicted - seen)[..., sampling.measured((n, n)).numpy()]
    middle = away.reshape(2, 7, 7)[:, 2:-2, 2:-2]  # the lattice ends where the raster goes on
    assert np.abs(middle).max() < 0.01 * seen.std()
    whole = sampling.slices()
    np.testing.assert_array_equal(predicted[:, :, whole[0], 1::2], predicted[:, :, whole[0], 0::2])


def test_a_scene_keeps_its_samplings_under_crop_and_selection():
    frames = frames_with_blocks(0, 0, (12, 14))
    names = tuple(Observation(f"{t}", "2024-01-01", 1.0) for t in range(3))
    valid = torch.ones_like(frames, dtype=torch.bool)
    scene = Scene(frames, valid, Grid(None, (10, 0, 0, 0, -10, 0), (12, 14)), BANDS, names)
    assert scene.samplings[1] == Sampling(2)
    assert scene.crop(6).samplings[1] == Sampling(2, 1, 0)  # rows 3 to 8, columns 4 to 9
    assert scene.select([0, 2], "").samplings[1] == Sampling(2)
    withheld = dataclasses.replace(scene, valid=torch.zeros_like(valid), judged=valid)
    assert withheld.samplings[1] == Sampling(2)
    assert scene.measured.sum((1, 2)).tolist() == [12 * 14, 6 * 7]


def test_real_20_m_bands(shared_data):
    for folder, pitches in (("belgium_monthly", [1, 1, 1, 2, 2, 2, 1, 2, 2]), ("belgium_apr_cloudy", [1, 1, 2])):
        scene = SceneFolder(root=str(shared_data / folder)).load()
        assert [s.pitch for s in scene.samplings] == pitches
