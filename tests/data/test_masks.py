import numpy as np
import pytest

from s2sr.data.masks import measured, scl_mask


def test_a_masked_pixel_grows_by_dilate_along_both_axes_and_not_around_the_border():
    scl = np.full((7, 9), 4, np.uint8)
    scl[0, 8] = scl[4, 3] = 9
    expected = np.zeros((7, 9), bool)
    expected[:3, 6:] = expected[2:7, 1:6] = True
    assert np.array_equal(scl_mask(scl, classes=[8, 9], dilate=2), expected)


def test_only_the_named_classes_are_masked():
    scl = np.arange(12, dtype=np.uint16)[None]
    assert np.flatnonzero(scl_mask(scl, classes=[0, 1, 3, 8, 9, 10], dilate=0)).tolist() == [0, 1, 3, 8, 9, 10]


@pytest.mark.parametrize(
    ("values", "nodata", "expected"),
    [
        (np.array([0, 1, 65535], np.uint16), None, [False, True, True]),
        (np.array([0, 1, 65535], np.uint16), 65535, [True, True, False]),
        (np.array([0, np.nan, np.inf, -9999], np.float32), None, [True, False, False, True]),
        (np.array([0, np.nan, np.inf, -9999], np.float32), -9999.0, [True, False, False, False]),
        (np.array([0, np.nan], np.float32), np.nan, [True, False]),
    ],
)
def test_measured(values, nodata, expected):
    assert measured(values, nodata=nodata).tolist() == expected
