from pathlib import Path

import pytest

from s2sr.observations import configuration
from s2sr.overrides import quoted


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("psf=0.5", "psf='0.5'"),
        ("psf=0.3,0.4", "psf='0.3','0.4'"),
        ("psf=sentinel2,0.4", "psf=sentinel2,'0.4'"),
        ("c2f=2_4", "c2f='2_4'"),
        ("c2f=8", "c2f='8'"),
        ("+psf=0.5", "+psf='0.5'"),
        ("strategy=lbfgs,adam", "strategy=lbfgs,adam"),
        ("misfit=null", "misfit='null'"),
        ("psf.sigma=0.5", "psf.sigma=0.5"),
        ("crop=20", "crop=20"),
        ("~strategy.polish", "~strategy.polish"),
        ("-m", "-m"),
        ("psf.sigma={B02:0.39,B03:0.41}", "psf.sigma={B02:0.39,B03:0.41}"),
        ("psf='0.5'", "psf='0.5'"),
        ("data.root=~/stack", f"data.root='{Path.home()}/stack'"),
        ("hydra.run.dir=out/Äcker und Wälder (2024)", "hydra.run.dir='out/Äcker und Wälder (2024)'"),
        ("data.root=a b/c-d_e.f", "data.root=a b/c-d_e.f"),
        ("data.root='~/Äcker'", "data.root='~/Äcker'"),
        ("data.bands=[B02,B03", "data.bands=[B02,B03"),
        ("hydra.run.dir=out/${seed}", "hydra.run.dir=out/${seed}"),
        ("--config-dir=/a/Ä", "--config-dir=/a/Ä"),
        ("data.aoi=", "data.aoi="),
    ],
)
def test_what_hydra_would_not_read_as_it_is_meant_is_quoted_and_nothing_else(given, expected):
    assert quoted([given]) == [expected]


def test_python_takes_them_as_the_command_line_does():
    assert configuration("psf=0.5", "c2f=2_4").psf.sigma == 0.5
    assert configuration("data=geotiff", "data.root=Äcker (2024)").data.root == "Äcker (2024)"
