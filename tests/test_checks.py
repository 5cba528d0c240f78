"""Checks of single values."""

import re

import numpy as np
import pytest

from support.checks import check_choice, check_number, check_positive_int


@pytest.mark.parametrize("allowed", [("freq", "2D"), {"freq": 1, "2D": 2}, ["freq", "2D"], {"freq": 1, "2D": 2}.keys()])
@pytest.mark.parametrize(
    "value", [["freq"], {"freq": 1}, {"freq"}, None, 2, True, b"freq", "", "f", ("freq",)], ids=repr
)
def test_a_value_of_any_type_that_is_not_a_choice_is_named(value, allowed):
    with pytest.raises(ValueError, match=re.escape(f"layout={value!r} is unknown; choose one of freq, 2D")):
        check_choice("layout", value, allowed)
    check_choice("layout", "2D", allowed)


def test_an_array_is_not_a_choice():
    for value in (np.array(["freq", "2D"]), np.array("freq"), np.ones((2, 2))):
        with pytest.raises(ValueError, match=re.escape(f"layout={value!r} is unknown; choose one of freq, 2D")):
            check_choice("layout", value, ("freq", "2D"))
    check_choice("layout", np.array(["freq"])[0], ("freq", "2D"))  # a string of numpy's is a string


def test_whole_numbers_may_be_choices():
    check_choice("copies", 3, (1, 3))
    for value in (2, True, 3.0, "3", [3]):
        with pytest.raises(ValueError, match=re.escape(f"copies={value!r} is unknown; choose one of 1, 3")):
            check_choice("copies", value, (1, 3))


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "3", [3]], ids=repr)
def test_what_is_not_a_positive_whole_number(value):
    with pytest.raises(ValueError, match=re.escape(f"hop={value!r} must be a positive whole number")):
        check_positive_int(n_fft=512, hop=value)
    check_positive_int(n_fft=512, hop=np.int64(3))


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, None, "1", True, [1]], ids=repr)
def test_what_is_not_a_share(value):
    with pytest.raises(
        ValueError, match=re.escape(f"share={value!r} must be a finite number of at least 0 and at most 1")
    ):
        check_number("share", value, 0, most=1)
    check_number("share", 0, 0, most=1)
    check_number("share", 1.0, 0, most=1)
