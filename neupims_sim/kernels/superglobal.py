"""The pooling chain of SuperGlobal image retrieval (Shao et al., ICCV 2023, arXiv 2308.06954).

Maps are [batch, channels, height, width], descriptors [batch, channels]. One scale of an image: backbone with
:func:`relup`, :func:`regional_gem`, :func:`gem_plus`, :func:`l2_normalize`, whitening; all scales: :func:`scale_gem`.
"""

from __future__ import annotations

import numpy as np

from neupims_sim.errors import InputError
from neupims_sim.kernels.arrays import FloatArray, features, positive_floor
from neupims_sim.kernels.pooling import exponents, generalized_mean, root_of_mean

MAPS = ("batch", "channels", "height", "width")


def relup(x: FloatArray, alpha: float = 0.014) -> FloatArray:
    """ReLU with a raised floor, ``max(x, alpha)``, of maps [batch, channels, height, width]."""
    x = features("relup: x", x, *MAPS)
    if not np.isfinite(alpha):
        raise InputError(f"relup: alpha={alpha}; allowed: a finite number")
    raised: FloatArray = np.maximum(x, np.asarray(alpha, x.dtype))
    return raised


def regional_gem(x: FloatArray, p: float = 2.5, window: int = 5) -> FloatArray:
    """``0.5 (mean over window x window of x^p)^(1/p) + 0.5 x``, of the shape of x.

    Parameters
    ----------
    x: maps [batch, channels, height, width] without negative elements. The window is centred on each of them; beyond
        the border the map is mirrored, the border itself not repeated.
    p: the exponent, positive and finite.
    window: an odd number of pixels, less than twice the shorter side.

    Raises InputError for any other window, exponent or map.
    """
    x = features("regional_gem: x", x, *MAPS)
    if np.asarray(x).min() < 0:
        raise InputError(f"regional_gem: x holds {np.asarray(x).min()}; allowed: 0 and more (maps after a ReLU)")
    exponent = exponents("regional_gem: p", p, 1, x)[0]
    height, width = x.shape[2:]
    half = window // 2
    if window < 1 or window % 2 == 0 or half >= min(height, width):
        raise InputError(f"regional_gem: window={window}; allowed: odd, 1 to {2 * min(height, width) - 1}")

    rows = np.pad(np.arange(height), half, mode="reflect")[:, np.newaxis]
    columns = np.pad(np.arange(width), half, mode="reflect")
    with np.errstate(over="ignore", under="ignore"):
        powers = np.power(x, exponent)[:, :, rows, columns]
        total = np.zeros_like(x)
        for i in range(window):
            for j in range(window):
                total += powers[:, :, i : i + height, j : j + width]
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(x)[:, :, rows, columns], (window, window), (2, 3))
    local = root_of_mean(total / window**2, exponent, windows)
    mixed: FloatArray = 0.5 * (local + x)
    return mixed


def gem_plus(x: FloatArray, p: float = 4.6, eps: float = 1e-8) -> FloatArray:
    """``(mean over pixels of max(x, eps)^p)^(1/p)``: maps [batch, channels, height, width] -> [batch, channels].

    Raises InputError for p or eps that are not positive and finite.
    """
    x = features("gem_plus: x", x, *MAPS)
    exponent = exponents("gem_plus: p", p, 1, x)[0]
    clamped = np.maximum(x, positive_floor("gem_plus: eps", eps, x))
    return generalized_mean(clamped.reshape(*x.shape[:2], -1), exponent)


def scale_gem(x: FloatArray, p: float | None = None) -> FloatArray:
    """One descriptor from those of several scales: [scales, batch, channels] -> [batch, channels].

    ``p=None`` (infinite): every scale L2-normalised, then the maximum over scales, not normalised again.
    A finite p: ``(mean_s (x_s - gamma)^p)^(1/p) + gamma`` of the descriptors as they are. As in the published code,
    gamma is the least element of all scales, channels *and* images, so that a result depends on the rest of its batch.

    Raises InputError for p that is not positive and finite.
    """
    x = features("scale_gem: x", x, "scales", "batch", "channels")
    if p is None:
        largest: FloatArray = l2_normalize(x).max(axis=0)
        return largest
    exponent = exponents("scale_gem: p", p, 1, x)[0]
    gamma = x.min()
    mean: FloatArray = generalized_mean(np.moveaxis(x - gamma, 0, 2), exponent) + gamma
    return mean


def l2_normalize(x: FloatArray, eps: float = 1e-12) -> FloatArray:
    """``x / max(|x|, eps)`` with the Euclidean norm over the last axis; a zero vector stays zero."""
    x = features("l2_normalize: x", x)
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    unit: FloatArray = x / np.maximum(norm, positive_floor("l2_normalize: eps", eps, x))
    return unit
