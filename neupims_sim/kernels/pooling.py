"""Pooling of transformer tokens: [batch, tokens, channels] -> [batch, channels].

Every token that is given is pooled: where token 0 is a class token that pooling leaves out, pass ``x[:, 1:]``.

GeM is the generalized mean of Radenovic et al. (arXiv 1711.02512), GGeM that of Ko et al. (arXiv 2212.04114) with one
exponent per group of channels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neupims_sim.errors import InputError
from neupims_sim.kernels.arrays import FloatArray, check_at_least, check_shape, features, positive_floor

TOKENS = ("batch", "tokens", "channels")


def average_pool(x: FloatArray) -> FloatArray:
    """Mean over tokens."""
    mean: FloatArray = features("average_pool: x", x, *TOKENS).mean(axis=1)
    return mean


def max_pool(x: FloatArray) -> FloatArray:
    """Maximum over tokens."""
    largest: FloatArray = features("max_pool: x", x, *TOKENS).max(axis=1)
    return largest


def class_token(x: FloatArray) -> FloatArray:
    """Token 0, a copy."""
    return features("class_token: x", x, *TOKENS)[:, 0].copy()


def gem(x: FloatArray, p: float = 3.0, eps: float = 1e-6) -> FloatArray:
    """``(mean_n max(x_n, eps)^p)^(1/p)`` over the tokens n of every channel.

    Parameters
    ----------
    x: [batch, tokens, channels], float32 or float64; computed in this type.
    p: the exponent, positive and finite. 1 is the average, and the maximum is its limit.
    eps: smaller elements count as this one.

    Raises InputError for p or eps that are not positive and finite, and for what :func:`features` refuses.
    """
    x = features("gem: x", x, *TOKENS)
    exponent = exponents("gem: p", p, 1, x)[0]
    return generalized_mean(np.moveaxis(np.maximum(x, positive_floor("gem: eps", eps, x)), 1, 2), exponent)


def gem_grad(x: FloatArray, p: float, grad_out: FloatArray, eps: float = 1e-6) -> tuple[FloatArray, FloatArray]:
    """(grad_x [batch, tokens, channels], grad_p, a 0-d array) of :func:`gem`: :func:`ggem_grad` with one group."""
    grad_x, grad_p = ggem_grad(x, p, grad_out, groups=1, eps=eps)
    return grad_x, grad_p.reshape(())


def ggem(x: FloatArray, p: npt.ArrayLike, *, groups: int, eps: float = 1e-6) -> FloatArray:
    """``(mean_n max(x_nd, eps)^p_g)^(1/p_g)`` for channel d of group ``g = floor(d groups / channels)``.

    Parameters
    ----------
    x: [batch, tokens, channels], float32 or float64; computed in this type.
    p: [groups], positive and finite; one number stands for all groups.
    groups: how many equal runs of consecutive channels; the motivation of the paper is one per attention head.
    eps: smaller elements count as this one.

    Raises InputError for groups that do not divide the channels, p or eps that are not positive and finite, and for
    what :func:`features` refuses.
    """
    x = features("ggem: x", x, *TOKENS)
    exponent = _channel_exponents("ggem", p, groups, x)
    return generalized_mean(np.moveaxis(np.maximum(x, positive_floor("ggem: eps", eps, x)), 1, 2), exponent)


def ggem_grad(
    x: FloatArray, p: npt.ArrayLike, grad_out: FloatArray, *, groups: int, eps: float = 1e-6
) -> tuple[FloatArray, FloatArray]:
    """Gradients of ``sum(grad_out * ggem(x, p, groups=groups, eps=eps))``.

    With the result f, N tokens and r = max(x, eps) / f (at most N^(1/p), so that no power overflows):
    ``df/dx = r^(p - 1) / N``, 0 where x < eps, and ``df/dp = f / p mean_n(r^p ln r)``. For p below 1 that mean is a small difference
    of large terms; there it is ``f (A / p - ln(1 + M) / p^2)`` with u = ln x - mean ln x, M = mean(e^(p u) - 1 - p u) and
    A = mean((e^(p u) - 1) u) / (1 + M), in double precision.

    Parameters
    ----------
    x, p, groups, eps: as of :func:`ggem`.
    grad_out: [batch, channels], of the type of x.

    Returns
    -------
    grad_x [batch, tokens, channels] and grad_p [groups], the latter summed over the batch and the group's channels.

    Raises InputError as :func:`ggem`.
    """
    x = features("ggem_grad: x", x, *TOKENS)
    batch, tokens, channels = x.shape
    grad_out = features("ggem_grad: grad_out", grad_out, "batch", "channels")
    check_shape("ggem_grad: grad_out", grad_out, x, (batch, channels))
    exponent = _channel_exponents("ggem_grad", p, groups, x)
    floor = positive_floor("ggem_grad: eps", eps, x)

    clamped = np.maximum(x, floor)
    pooled = generalized_mean(np.moveaxis(clamped, 1, 2), exponent)
    ratio = np.maximum(clamped / pooled[:, np.newaxis], np.finfo(x.dtype).tiny)
    slope = np.power(ratio, exponent - 1)
    per_token = grad_out / tokens
    grad_x = np.where(x >= floor, per_token[:, np.newaxis] * slope, x.dtype.type(0))
    logs = (slope * ratio * np.log(ratio)).sum(axis=1)
    per_channel = per_token * pooled * logs
    small = np.asarray(exponent) < 1
    if small.any():
        derivative = _logarithmic_derivative(np.asarray(clamped)[:, :, small], np.asarray(exponent)[small])
        per_channel[:, small] = grad_out[:, small] * pooled[:, small] * derivative * exponent[small]
    per_group = per_channel.reshape(batch, groups, channels // groups).sum(axis=(0, 2))
    return grad_x, per_group / exponent[:: channels // groups]


def _logarithmic_derivative(x: FloatArray, p: FloatArray) -> FloatArray:
    """d ln f / dp of the generalized mean f over the tokens, [batch, tokens, M] and [M] -> [batch, M]; see :func:`ggem_grad`."""
    logs, exponent = np.log(x.astype(np.float64)), p.astype(np.float64)
    deviation = logs - logs.mean(axis=1, keepdims=True)
    z = exponent * deviation
    # e^z - 1 - z keeps its digits near 0 as a series; 1e-3 is where both are right to 1e-12.
    beyond_linear = np.where(np.abs(z) < 1e-3, z * z * (0.5 + z * (1 / 6 + z * (1 / 24 + z / 120))), np.expm1(z) - z)
    mean = beyond_linear.mean(axis=1)
    weighted = (np.expm1(z) * deviation).mean(axis=1) / (1 + mean)
    derivative: FloatArray = (weighted / exponent - np.log1p(mean) / exponent**2).astype(x.dtype)
    return derivative


def generalized_mean(x: FloatArray, p: FloatArray) -> FloatArray:
    """``(mean x^p)^(1/p)`` over the last axis of ``x >= 0``; ``p > 0``, of the type of x, broadcasts with the axes before it.

    Exponents below 1 go through logarithms (:func:`_mean_by_logarithms`), for their powers are close to 1 and keep few digits.
    """
    with np.errstate(over="ignore", under="ignore"):
        mean = np.power(x, p[..., np.newaxis]).mean(axis=-1)
    result = root_of_mean(mean, p, x)
    small = np.broadcast_to(np.asarray(p) < 1, np.asarray(mean).shape)
    if small.any():
        result[small] = _mean_by_logarithms(np.asarray(x)[small], np.broadcast_to(p, small.shape)[small])
    return result


def _mean_by_logarithms(x: FloatArray, p: FloatArray) -> FloatArray:
    """The same, [M, N] and [M] -> [M], as ``max exp(log1p(mean expm1(p ln(x / max))) / p)`` in double precision.

    It tends to the geometric mean as p tends to 0.
    """
    values, exponent = x.astype(np.float64), p.astype(np.float64)
    largest = values.max(axis=1)
    with np.errstate(divide="ignore"):
        logs = np.log(values / np.where(largest > 0, largest, 1)[:, np.newaxis])
    means = np.expm1(exponent[:, np.newaxis] * logs).mean(axis=1)
    with np.errstate(divide="ignore"):
        result: FloatArray = (largest * np.exp(np.log1p(means) / exponent)).astype(x.dtype)
    return result


def root_of_mean(mean: FloatArray, p: FloatArray, x: FloatArray) -> FloatArray:
    """``mean^(1/p)``, where ``mean`` is that of ``x^p`` over the axes which ``x`` has after those of ``mean``.

    Where the mean over- or underflowed (large p, small x), it is taken again from powers of x / max(x), which cannot.
    That is a safeguard of this implementation and not counted in :mod:`neupims_sim.kernels.costs`.
    """
    result = np.power(mean, 1 / p)
    plain, limits = np.asarray(mean), np.finfo(x.dtype)
    # Above tiny / eps, all that underflowed is less than the last digit of the mean.
    lost = ~((plain >= limits.tiny / limits.eps) & (plain < np.inf))
    if lost.any():
        values = x[lost].reshape(np.count_nonzero(lost), -1)
        powers = np.broadcast_to(p, plain.shape)[lost]
        largest = values.max(axis=1)
        with np.errstate(under="ignore"):
            scaled = np.power(values / np.where(largest > 0, largest, 1)[:, np.newaxis], powers[:, np.newaxis])
        result[lost] = largest * np.power(scaled.mean(axis=1), 1 / powers)
    return result


def exponents(what: str, p: npt.ArrayLike, groups: int, x: FloatArray) -> FloatArray:
    """``p`` as [groups] in the type of ``x``.

    Raises InputError unless ``p`` is one number or ``groups`` of them, each positive and finite in that type.
    """
    try:
        with np.errstate(over="ignore", under="ignore"):
            values = np.asarray(p).astype(x.dtype)
    except (TypeError, ValueError):
        raise InputError(f"{what}={p!r}; allowed: positive numbers") from None
    if values.ndim and values.shape != (groups,):
        raise InputError(f"{what} has shape={list(values.shape)}, expected [groups] = [{groups}]")
    wrong = ~((values >= np.finfo(x.dtype).tiny) & (values < np.inf))
    if wrong.any():
        raise InputError(f"{what}={np.asarray(p)[wrong].flat[0]} must be positive and finite in {x.dtype}")
    return np.broadcast_to(values, (groups,))


def _channel_exponents(what: str, p: npt.ArrayLike, groups: int, x: FloatArray) -> FloatArray:
    """The exponent of every channel, [channels]."""
    channels = x.shape[-1]
    check_at_least(f"{what}: groups", groups, 1)
    if channels % groups:
        divisors = ", ".join(str(d) for d in range(1, channels + 1) if channels % d == 0)
        raise InputError(f"{what}: groups={groups} does not divide the {channels} channels; allowed: {divisors}")
    return np.repeat(exponents(f"{what}: p", p, groups, x), channels // groups)
