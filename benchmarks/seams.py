"""How well neighbouring runs agree where they overlap: a piece of a scene against the scene as a whole.

python benchmarks/seams.py [--data FOLDER] [--folders apulia_clear,...] [--strategies lbfgs,bayes] [OVERRIDE ...]

The piece is the left half of the scene, reconstructed at 4x by itself. By distance from the cut, in LR pixels: rms
difference over the product's standard deviation (rms over the same pixels), without and with each band's mean
difference. The last columns are that mean difference (its rms over bands) and the standard deviation, in reflectance.
FOLDER holds the stacks.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from aerial import DATA
from torch import Tensor

SCALE = 4
EDGES = (0, 1, 2, 5, 10, 20, 40)  # LR pixels from the cut


def products(scene, overrides: list[str]) -> tuple[Tensor, Tensor]:
    """[b, y, x] the product at `SCALE` and its standard deviation."""
    from s2sr.experiment import product_of
    from s2sr.observations import configuration
    from s2sr.reconstruction import reconstruct

    module = reconstruct(scene, configuration(f"c2f.levels=[2,{SCALE}]", *overrides))
    product = product_of(module, module.field.render(), SCALE)
    return product.image, product.deviation


def left_half(scene):
    """The scene of the first half of its columns."""
    rows, columns = scene.grid.shape
    width = columns // 2
    samples = {name: getattr(scene, name)[..., :width] for name in ("frames", "valid", "judged", "validation")}
    return replace(scene, **samples, grid=scene.grid.crop(0, 0, (rows, width)))


def main() -> None:
    import s2sr

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folders", type=lambda x: x.split(","), default=["apulia_clear", "belgium_monthly"])
    parser.add_argument("--strategies", type=lambda x: x.split(","), default=["lbfgs", "bayes"])
    options, overrides = parser.parse_known_args()
    logging.getLogger("s2sr").setLevel(logging.ERROR)
    print(f"{'':28}{'LR pixels':>10}{'detail':>9}{'all':>9}{'level':>10}{'std':>10}")
    for folder in options.folders:
        scene = s2sr.load_scene(options.data / folder)
        for strategy in options.strategies:
            chosen = [f"strategy={strategy}", *overrides]
            whole, deviation = products(scene, chosen)
            piece, _ = products(left_half(scene), chosen)
            away = piece - whole[..., : piece.shape[2]]
            level = away[..., : -EDGES[2] * SCALE].mean((1, 2), keepdim=True)
            for near, far in pairwise(EDGES):
                columns = slice(piece.shape[2] - far * SCALE, piece.shape[2] - near * SCALE)
                std = deviation[..., columns].square().mean((1, 2), keepdim=True).sqrt()
                detail, every = (float((x[..., columns] / std).square().mean().sqrt()) for x in (away - level, away))
                row = f"{detail:9.3f}{every:9.3f}{level.square().mean().sqrt():10.5f}{std.mean():10.5f}"
                print(f"{folder:18}{strategy:10}{f'{near} to {far}':>10}{row}", flush=True)


if __name__ == "__main__":
    main()
