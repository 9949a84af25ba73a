"""How the cost of a fit grows with the scene. What a whole run takes is told by benchmarks/process.py.

python benchmarks/scale.py [--sizes 256,512,1024] [--threads 2] [--rounds 3] [--stages true]

The scenes are power-law surfaces, seen by the model itself through jitter of .15 px and noise of .002. Printed are

* for the weights alone (stage `solve` of strategy=bayes, shifts and noise known) at 4x from 16 observations of one
  band, without masks and with a tenth of all samples masked in squares: seconds, seconds of the processor (the better
  measure on a shared machine), the same per LR pixel, evaluations and peak memory; medians of rounds in which the
  sizes take turns;
* for the blind fit, the same stage by stage and level by level, and for what comes before it.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import resource
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from s2sr.cli import keep_memory

BANDS = ("B02", "B03", "B04", "B08")
FITS = ((256, 8, 4, "c2f=2_4_8"), (512, 16, 3, "c2f=2_4"))  # size, observations, bands, levels
COLUMNS = ("seconds", "cpu s", "cpu us/pixel", "evaluations", "memory MB")


def surface(shape: tuple[int, int], scale: int) -> Tensor:
    """A power law of slope 2.5 without wavelengths over 50 LR pixels; mean .12, standard deviation .03."""
    rows, columns = torch.fft.fftfreq(shape[0], 1 / scale)[:, None], torch.fft.rfftfreq(shape[1], 1 / scale)
    spectrum = torch.fft.rfft2(torch.randn(shape)) * (0.02**2 + rows.square() + columns.square()) ** (-2.5 / 4)
    spectrum[0, 0] = 0
    image = torch.fft.irfft2(spectrum, s=shape)
    return 0.12 + 0.03 * image / image.std()


def simulated(size: int, observations: int, bands: int, *, masked: float = 0.0):
    """(a simulated scene, its shifts)."""
    from s2sr.model.field import SplatField
    from s2sr.model.grid import Grid
    from s2sr.model.psf import PSF
    from s2sr.model.scene import Observation, Scene

    torch.manual_seed(0)
    grid = Grid("EPSG:32632", (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0), (size, size))
    shifts = 0.15 * torch.randn(observations, 2)
    shifts -= shifts.mean(0)
    field = SplatField(grid, BANDS[:bands], scale=4, psf=PSF(0.4), shifts=shifts)
    with torch.no_grad():
        for w in field.weights:
            w.copy_(surface(field.lattice.shape, 4))
        frames = field()
    frames += 0.002 * torch.randn(frames.shape)
    valid = torch.ones(observations, 1, size, size)
    if masked:
        cells = torch.rand(observations, 1, math.ceil(size / 32), math.ceil(size / 32)) > masked
        valid = cells.float().repeat_interleave(32, 2).repeat_interleave(32, 3)[..., :size, :size]
    valid = valid.expand_as(frames) > 0
    names = [f"2023-{5 + t // 28:02}-{t % 28 + 1:02}" for t in range(observations)]
    seen = tuple(Observation(name, name, float(v.float().mean())) for name, v in zip(names, valid, strict=True))
    return Scene(frames=frames * valid, valid=valid, grid=grid, bands=BANDS[:bands], observations=seen), shifts


def solve(size: int, masked: float, threads: int) -> list[float]:
    """Seconds, those of the processor, the same per LR pixel, evaluations and peak memory."""
    torch.set_num_threads(threads)
    from s2sr.fit.module import Reconstruction
    from s2sr.model.field import SplatField
    from s2sr.model.psf import PSF
    from s2sr.observations import build, configuration
    from s2sr.reconstruction import posed
    from s2sr.training import train

    logging.getLogger("s2sr").setLevel(logging.ERROR)
    cfg = configuration("strategy=bayes", "c2f=4", "misfit=quadratic")

    def made(size: int) -> Reconstruction:
        scene, shifts = simulated(size, 16, 1, masked=masked)
        field = SplatField(scene.grid, scene.bands, scale=4, psf=PSF(0.4), shifts=shifts)
        return posed(scene, field, {"solve": build(cfg.strategy.solve)}, cfg, noise=0.002)

    train(made(32), cfg)  # libraries are loaded
    module = made(size)
    start = time.perf_counter(), time.process_time()
    train(module, cfg)
    seconds, busy = time.perf_counter() - start[0], time.process_time() - start[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [seconds, busy, busy / size**2 * 1e6, module.evals, memory]


def stages(size: int, observations: int, bands: int, levels: str, threads: int) -> list[tuple[str, list[float]]]:
    """For every stage and level: seconds, those of the processor and per LR pixel, evaluations, peak memory so far."""
    torch.set_num_threads(threads)
    from lightning.pytorch.callbacks import Callback

    from s2sr.observations import configuration
    from s2sr.reconstruction import prepare
    from s2sr.training import train

    logging.getLogger("s2sr").setLevel(logging.ERROR)
    cfg = configuration("strategy=bayes", levels)
    train(prepare(simulated(32, observations, bands)[0], cfg), cfg)  # libraries are loaded
    scene, _ = simulated(size, observations, bands)
    found: list[tuple[str, list[float]]] = []
    last = [time.perf_counter(), time.process_time(), 0]

    def lap(name: str, evaluations: int) -> None:
        now = [time.perf_counter(), time.process_time(), evaluations]
        seconds, busy, evaluated = (b - a for a, b in zip(last, now, strict=True))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found.append((name, [seconds, busy, busy / size**2 * 1e6, evaluated, memory]))
        last[:] = now

    class Laps(Callback):
        def on_train_epoch_end(self, trainer, module) -> None:
            lap(f"{module.phase.name} x{module.phase.scale}", module.evals)

    module = prepare(scene, cfg)
    lap("before", 0)
    train(module, cfg, callbacks=[Laps()])
    return found


def write(folder: Path, size: int, observations: int, bands: int) -> None:
    """Write a scene folder, in digital numbers of 1e-4."""
    import rasterio

    scene, _ = simulated(size, observations, bands)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": bands, "height": size, "width": size, "nodata": 0}
    place = {"crs": scene.grid.crs, "transform": rasterio.Affine(*scene.grid.transform)}
    for frame, observation in zip(scene.frames, scene.observations, strict=True):
        with rasterio.open(folder / f"{observation.name}.tif", "w", **profile, **place) as out:
            out.write((frame * 1e4).round().clamp(1, 65535).int().numpy().astype("uint16"))
            out.descriptions = scene.bands
            out.scales = [1e-4] * bands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="256,512,1024")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stages", choices=["true", "false"], default="true")
    options = parser.parse_args()
    print(f"weights alone, 16 observations, 1 band, 4x, {options.threads} threads")
    print(f"{'':24}" + "".join(f"{column:>14}" for column in COLUMNS))
    processes = multiprocessing.get_context("spawn")
    with processes.Pool(1, initializer=keep_memory, maxtasksperchild=1) as pool:  # as train.py does
        cases = [(int(size), masked) for size in filter(None, options.sizes.split(",")) for masked in (0.0, 0.1)]
        rounds = [[pool.apply(solve, (*case, options.threads)) for case in cases] for _ in range(options.rounds)]
        for (size, masked), *found in zip(cases, *rounds, strict=True):
            name = f"{size} x {size} {'masked' if masked else 'unmasked'}"
            print(f"{name:24}" + "".join(f"{statistics.median(column):14.2f}" for column in zip(*found, strict=True)))
        for size, observations, bands, levels in FITS if options.stages == "true" else ():
            print(f"{size} x {size}, {observations} dates, {bands} bands, {levels}")
            for name, found in pool.apply(stages, (size, observations, bands, levels, options.threads)):
                print(f"{name:24}" + "".join(f"{value:14.2f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
