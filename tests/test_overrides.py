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
    ],
)
def test_choices_of_groups_that_hydra_would_not_read_as_text_are_quoted_and_nothing_else(given, expected):
    assert quoted([given]) == [expected]


def test_python_takes_them_as_the_command_line_does():
    assert configuration("psf=0.5", "c2f=2_4").psf.sigma == 0.5
