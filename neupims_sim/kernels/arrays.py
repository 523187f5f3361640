"""What every kernel asks of its arrays: float32 or float64, the right axes, finite. The result has the same type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from neupims_sim.errors import InputError

FloatArray = npt.NDArray[np.floating[Any]]
IndexArray = npt.NDArray[np.intp]


def features(what: str, x: npt.ArrayLike, *axes: str) -> FloatArray:
    """``x`` as an array; ``what`` (``"gem: x"``) begins the error line.

    Raises InputError unless ``x`` is float32 or float64, has one non-empty dimension per name in ``axes`` (any
    number of them if no axes are named), and holds neither NaN nor infinity.
    """
    array = floats(what, x, *axes)
    check_finite(what, array)
    return array


def floats(what: str, x: npt.ArrayLike, *axes: str) -> FloatArray:
    """:func:`features` without looking at the values: for arrays that are too large to look at in one go."""
    array = np.asanyarray(x)
    if array.dtype not in (np.float32, np.float64):
        raise InputError(f"{what} has dtype={array.dtype}; allowed: float32, float64")
    shape = list(array.shape)
    if axes and array.ndim != len(axes):
        raise InputError(f"{what} has shape={shape}, expected [{', '.join(axes)}]")
    if array.size == 0:
        raise InputError(f"{what} has shape={shape}, which holds nothing; every dimension must be at least 1")
    return array


def check_finite(what: str, array: FloatArray, first_row: int = 0) -> None:
    """Raise InputError that names the first NaN or infinity; ``first_row`` is the index of the array's row 0."""
    finite = np.isfinite(np.asarray(array))
    if not finite.all():
        position = [int(i) for i in np.argwhere(~finite)[0]]
        value = array[tuple(position)]
        position[:1] = [i + first_row for i in position[:1]]
        raise InputError(f"{what}{position}={value}; allowed: finite numbers")


def check_shape(what: str, array: FloatArray, like: FloatArray, shape: Sequence[int]) -> None:
    """Raise InputError unless ``array`` has ``shape`` and the type of ``like``."""
    if array.shape != tuple(shape):
        raise InputError(f"{what} has shape={list(array.shape)}, expected {list(shape)}")
    if array.dtype != like.dtype:
        raise InputError(f"{what} has dtype={array.dtype}, expected {like.dtype} as the other arrays")


def check_at_least(what: str, value: int, smallest: int) -> None:
    """Raise InputError unless ``value`` is at least ``smallest``."""
    if value < smallest:
        raise InputError(f"{what}={value} must be at least {smallest}")


def positive_floor(what: str, eps: float, x: FloatArray) -> FloatArray:
    """``eps`` in the type of ``x``; InputError unless it is positive there."""
    with np.errstate(over="ignore", under="ignore"):
        floor = np.asarray(eps, x.dtype)
    if not 0 < floor < np.inf:
        raise InputError(f"{what}={eps} must be positive and finite in {x.dtype}")
    return floor
