"""Checks of single values: every message names the value and says what is allowed."""

import math

import numpy as np


def check_choice(setting, value, allowed):
    """Raise ValueError unless a setting's value is one of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{setting}={value!r} is unknown; choose one of {', '.join(allowed)}")


def check_positive_int(**values):
    """Raise ValueError unless every value is a whole number above 0."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r} must be a positive whole number")


def check_number(name, value, least, *, most=math.inf, beyond=False, whole=False):
    """Raise ValueError unless a value is a finite number from the least one (or beyond) to the most."""
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not least <= value <= most or (beyond and value == least):
        kind = "a whole number" if whole else "a finite number"
        bound = "" if least == -math.inf else f" {'above' if beyond else 'of at least'} {least}"
        bound += "" if most == math.inf else f" and at most {most}"
        raise ValueError(f"{name}={value!r} must be {kind}{bound}")
