"""Pooling kernels agree with published implementations and obey the laws of generalized means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neupims_sim import kernels
from neupims_sim.errors import InputError

GOLDEN = Path(__file__).parent / "golden" / "vision"
POOLING = np.load(GOLDEN / "superglobal_pooling.npz")
GGEM = np.load(GOLDEN / "ggem.npz")

EPS = 1e-6


def pixels_as_tokens(maps: np.ndarray) -> np.ndarray:
    return maps.reshape(*maps.shape[:2], -1).swapaxes(1, 2)


def superglobal_chain(maps: np.ndarray) -> np.ndarray:
    return kernels.l2_normalize(kernels.gem_plus(kernels.regional_gem(maps)))


GOLDEN_KERNELS = [
    *[(f"{case}_gemp", f"{case}_x", kernels.gem_plus) for case in "ab"],
    *[(f"{case}_gem3", f"{case}_x", lambda x: kernels.gem(pixels_as_tokens(x))) for case in "ab"],
    *[(f"{case}_rgem", f"{case}_x", kernels.regional_gem) for case in "ab"],
    *[(f"{case}_rgem_gemp_l2", f"{case}_x", superglobal_chain) for case in "ab"],
    *[(f"{case}_relup", f"{case}_xs", kernels.relup) for case in "ab"],
    *[(f"{case}_sgem_inf", f"{case}_scales", kernels.scale_gem) for case in "cd"],
    *[(f"{case}_sgem_p10", f"{case}_scales", lambda x: kernels.scale_gem(x, p=10)) for case in "cd"],
]


@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), [(np.float64, "f64", 1e-10), (np.float32, "f32", 1e-6)])
@pytest.mark.parametrize(("expected", "given_", "kernel"), GOLDEN_KERNELS, ids=[row[0] for row in GOLDEN_KERNELS])
def test_superglobal_pooling_equals_the_published_code(expected, given_, kernel, dtype, suffix, tolerance) -> None:
    result = kernel(POOLING[given_].astype(dtype))

    assert result.dtype == dtype
    np.testing.assert_allclose(result, POOLING[f"{expected}_{suffix}"], rtol=0, atol=tolerance)


def test_every_golden_pooling_array_is_compared() -> None:
    compared = {f"{row[0]}_{suffix}" for row in GOLDEN_KERNELS for suffix in ("f32", "f64")}
    assert compared | {row[1] for row in GOLDEN_KERNELS} == set(POOLING.files)


def test_a_dead_channel_pools_to_eps() -> None:
    dead = POOLING["a_x"][:1, 3:4]
    assert dead.max() == 0
    np.testing.assert_allclose(kernels.gem_plus(dead), 1e-8, rtol=1e-6)
    np.testing.assert_allclose(kernels.gem(pixels_as_tokens(dead)), 1e-6, rtol=1e-6)


def test_ggem_and_its_gradients_equal_automatic_differentiation() -> None:
    x, p, groups, eps = GGEM["x"], GGEM["p"], int(GGEM["groups"]), float(GGEM["eps"])
    patches = x[:, 1:]

    pooled = kernels.ggem(patches, p, groups=groups, eps=eps)
    grad_x, grad_p = kernels.ggem_grad(patches, p, GGEM["w"], groups=groups, eps=eps)

    np.testing.assert_allclose(pooled, GGEM["f"], rtol=0, atol=1e-10)
    np.testing.assert_allclose((pooled * GGEM["w"]).sum(), GGEM["loss"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(grad_x, GGEM["grad_x"][:, 1:], rtol=0, atol=1e-10)
    np.testing.assert_allclose(grad_p, GGEM["grad_p"], rtol=0, atol=1e-10)
    assert (grad_x[patches < eps] == 0).all()


def test_average_max_and_class_token() -> None:
    x = np.array([[[1, 5], [3, 4], [8, 0]]], np.float32)
    assert kernels.average_pool(x).tolist() == [[4, 3]]
    assert kernels.max_pool(x).tolist() == [[8, 5]]
    assert kernels.class_token(x).tolist() == [[1, 5]]


# Laws

exponents = st.floats(0.3, 12)
positive = st.floats(1e-3, 1e3)


@st.composite
def tokens(draw: st.DrawFn, elements: st.SearchStrategy[float] = positive, groups: int = 1) -> np.ndarray:
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 4).map(lambda n: n * groups)))
    return draw(arrays(np.float64, shape, elements=elements))


@given(tokens(st.floats(-1e3, 1e3)), exponents)
def test_ggem_with_one_group_is_gem(x: np.ndarray, p: float) -> None:
    assert (kernels.ggem(x, [p], groups=1) == kernels.gem(x, p)).all()


@given(tokens(st.floats(-1e3, 1e3), groups=3), st.lists(exponents, min_size=3, max_size=3))
def test_each_group_of_ggem_is_gem_with_its_own_exponent(x: np.ndarray, p: list[float]) -> None:
    parts = [kernels.gem(part, q) for part, q in zip(np.split(x, 3, axis=2), p, strict=True)]
    np.testing.assert_allclose(kernels.ggem(x, p, groups=3), np.concatenate(parts, axis=1), rtol=1e-12)


@given(tokens())
def test_exponent_1_is_the_average(x: np.ndarray) -> None:
    np.testing.assert_allclose(kernels.gem(x, 1), kernels.average_pool(x), rtol=1e-12)


@given(tokens(), st.floats(1, 1e6))
def test_gem_lies_between_the_maximum_and_the_maximum_over_the_pth_root_of_the_tokens(x: np.ndarray, p: float) -> None:
    pooled, largest = kernels.gem(x, p), x.max(axis=1)
    assert (pooled <= largest * (1 + 1e-12)).all()
    assert (pooled >= largest / x.shape[1] ** (1 / p) * (1 - 1e-12)).all()


@given(tokens(), exponents, st.randoms())
def test_the_order_of_tokens_does_not_matter(x: np.ndarray, p: float, random) -> None:
    order = random.sample(range(x.shape[1]), x.shape[1])
    np.testing.assert_allclose(kernels.gem(x[:, order], p), kernels.gem(x, p), rtol=1e-12)


@given(tokens(), exponents, st.floats(0.01, 100))
def test_scaling_the_tokens_scales_the_result(x: np.ndarray, p: float, factor: float) -> None:
    np.testing.assert_allclose(kernels.gem(factor * x, p), factor * kernels.gem(x, p), rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [1e-30, 1e-3, 1, 1e30])
@pytest.mark.parametrize("p", [0.5, 4.6, 100, 1e4])
def test_powers_that_leave_the_range_of_the_type_do_no_harm(dtype, magnitude, p) -> None:
    x = np.random.default_rng(0).uniform(0.1, 1, (1, 50, 3))
    expected = magnitude * x.max(axis=1) * ((x / x.max(axis=1)) ** p).mean(axis=1) ** (1 / p)
    maps = x.swapaxes(1, 2).reshape(1, 3, 5, 10)

    scaled = (magnitude * x).astype(dtype)
    np.testing.assert_allclose(kernels.gem(scaled, p, eps=1e-37), expected, rtol=2e-4 if dtype == np.float32 else 1e-11)

    regional = kernels.regional_gem((magnitude * maps).astype(dtype), p) / magnitude
    np.testing.assert_allclose(
        regional, kernels.regional_gem(maps, p), rtol=2e-4 if dtype == np.float32 else 1e-11, atol=0
    )


def test_regional_gem_of_a_dead_region_is_zero() -> None:
    assert (kernels.regional_gem(np.zeros((1, 1, 3, 3), np.float32)) == 0).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(0.3, 8))
def test_gradients_equal_finite_differences(seed: int, groups: int, p: float) -> None:
    random = np.random.default_rng(seed)
    x = random.uniform(0.1, 2, (2, 5, 2 * groups)) * random.choice([-1, 1, 1], (2, 5, 2 * groups))
    powers, weights = p * random.uniform(0.8, 1.2, groups), random.normal(size=(2, 2 * groups))
    eps = 0.05

    def loss(x: np.ndarray, powers: np.ndarray) -> float:
        return float((weights * kernels.ggem(x, powers, groups=groups, eps=eps)).sum())

    def slopes(function, at: np.ndarray, step: float = 1e-6) -> np.ndarray:
        steps = step * np.eye(at.size).reshape(at.size, *at.shape)
        return np.reshape([(function(at + s) - function(at - s)) / (2 * step) for s in steps], at.shape)

    grad_x, grad_p = kernels.ggem_grad(x, powers, weights, groups=groups, eps=eps)
    np.testing.assert_allclose(grad_x, slopes(lambda x: loss(x, powers), x), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(grad_p, slopes(lambda p: loss(x, p), powers), rtol=1e-5, atol=1e-8)


def test_gradients_of_gem_are_those_of_one_group_and_keep_the_type() -> None:
    x = np.random.default_rng(1).normal(size=(2, 7, 4)).astype(np.float32)
    weights = np.ones((2, 4), np.float32)
    grad_x, grad_p = kernels.gem_grad(x, 3, weights)
    expected_x, expected_p = kernels.ggem_grad(x, [3], weights, groups=1)

    assert grad_x.dtype == grad_p.dtype == np.float32
    assert (grad_x == expected_x).all()
    assert grad_p.shape == ()
    assert grad_p == expected_p[0]


def test_gradients_at_the_limits_of_float32_are_finite() -> None:
    x = np.array([[[0], [1e-8], [3e38]]], np.float32)
    for p in (0.5, 1, 4.6, 500):
        grad_x, grad_p = kernels.gem_grad(x, p, np.ones((1, 1), np.float32), eps=1e-8)
        assert np.isfinite(grad_x).all()
        assert np.isfinite(grad_p)


# Bad input

TOKENS = np.ones((2, 4, 6))
MAPS = np.ones((1, 2, 6, 6))
NAN_TOKENS = np.where(np.arange(6) == 4, np.nan, TOKENS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: kernels.ggem(TOKENS, 3, groups=4),
            "ggem: groups=4 does not divide the 6 channels; allowed: 1, 2, 3, 6",
        ),
        (lambda: kernels.ggem(TOKENS, 3, groups=0), "ggem: groups=0 must be at least 1"),
        (lambda: kernels.ggem(TOKENS, [3, 3], groups=3), r"ggem: p has shape=\[2\], expected \[groups\] = \[3\]"),
        (lambda: kernels.ggem(TOKENS, [3, 0], groups=2), "ggem: p=0 must be positive and finite in float64"),
        (lambda: kernels.ggem(TOKENS, "three", groups=2), "ggem: p='three'; allowed: positive numbers"),
        (lambda: kernels.gem(TOKENS, -1), "gem: p=-1 must be positive"),
        (lambda: kernels.gem(TOKENS, np.inf), "gem: p=inf must be positive and finite"),
        (lambda: kernels.gem(TOKENS.astype(np.float32), 1e39), "gem: p=1e\\+39 must be positive and finite in float32"),
        (
            lambda: kernels.gem(TOKENS.astype(np.float32), eps=1e-50),
            "gem: eps=1e-50 must be positive and finite in float32",
        ),
        (lambda: kernels.gem(TOKENS, np.nan), "gem: p=nan must be positive"),
        (lambda: kernels.gem(TOKENS, [3.0, 4.0]), r"gem: p has shape=\[2\]"),
        (lambda: kernels.gem(TOKENS, eps=0), "gem: eps=0 must be positive and finite in float64"),
        (lambda: kernels.gem(TOKENS[0]), r"gem: x has shape=\[4, 6\], expected \[batch, tokens, channels\]"),
        (lambda: kernels.gem(NAN_TOKENS), r"gem: x\[0, 0, 4\]=nan; allowed: finite numbers"),
        (lambda: kernels.gem(TOKENS.astype(int)), "gem: x has dtype=int64; allowed: float32, float64"),
        (lambda: kernels.gem(TOKENS[:, :0]), r"gem: x has shape=\[2, 0, 6\], which holds nothing"),
        (
            lambda: kernels.ggem_grad(TOKENS, 3, TOKENS[:, 0, :3], groups=1),
            r"grad_out has shape=\[2, 3\], expected \[2, 6\]",
        ),
        (
            lambda: kernels.ggem_grad(TOKENS, 3, np.ones((2, 6), np.float32), groups=1),
            "grad_out has dtype=float32, expected float64",
        ),
        (
            lambda: kernels.gem_plus(TOKENS),
            r"gem_plus: x has shape=\[2, 4, 6\], expected \[batch, channels, height, width\]",
        ),
        (lambda: kernels.gem_plus(MAPS, p=0), "gem_plus: p=0 must be positive"),
        (lambda: kernels.regional_gem(-MAPS), r"regional_gem: x holds -1.0; allowed: 0 and more"),
        (lambda: kernels.regional_gem(MAPS, window=4), "regional_gem: window=4; allowed: odd, 1 to 11"),
        (lambda: kernels.regional_gem(MAPS, window=13), "regional_gem: window=13; allowed: odd, 1 to 11"),
        (lambda: kernels.relup(MAPS, np.nan), "relup: alpha=nan"),
        (
            lambda: kernels.scale_gem(MAPS),
            r"scale_gem: x has shape=\[1, 2, 6, 6\], expected \[scales, batch, channels\]",
        ),
        (lambda: kernels.scale_gem(TOKENS, 0), "scale_gem: p=0 must be positive"),
    ],
)
def test_bad_input_is_refused_with_one_line(call, message) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [1e-30, 1e-7, 1e-3, 0.1, 0.5, 0.999, 1.0, 3.0])
def test_gem_keeps_its_digits_for_small_exponents(p: float, dtype: type) -> None:
    """Against logarithms around the geometric mean in extended precision; p to 0 is the geometric mean."""
    x = np.random.default_rng(0).uniform(0.01, 2, (2, 7, 5)).astype(dtype)
    logs = np.log(x.astype(np.longdouble))
    centre = logs.mean(axis=1)
    exponent = np.longdouble(np.dtype(dtype).type(p))
    exact = np.exp(centre + np.log1p(np.expm1(exponent * (logs - centre[:, np.newaxis])).mean(axis=1)) / exponent)
    tolerance = 8 * np.finfo(dtype).eps
    assert np.abs(kernels.gem(x, p) / exact - 1).max() < tolerance
    if p < 1e-6:
        assert np.abs(kernels.gem(x, p) / np.exp(centre) - 1).max() < max(tolerance, 1e-5 * (p > 1e-10))


@pytest.mark.parametrize("p", [1e-3, 0.1, 0.5, 0.999])
def test_the_gradient_of_small_exponents_is_that_of_the_function(p: float) -> None:
    x = np.random.default_rng(1).uniform(0.01, 2, (2, 7, 5))
    step = 1e-3 * p
    slope = (kernels.gem(x, p + step).sum() - kernels.gem(x, p - step).sum()) / (2 * step)
    grad_x, grad_p = kernels.gem_grad(x, p, np.ones((2, 5)))
    assert grad_p == pytest.approx(slope, rel=1e-5)
    assert kernels.gem_grad(x.astype(np.float32), p, np.ones((2, 5), np.float32))[1] == pytest.approx(slope, rel=1e-5)
    more = x.copy()
    more[0, 3, 2] += 1e-6
    assert grad_x[0, 3, 2] == pytest.approx((kernels.gem(more, p) - kernels.gem(x, p))[0, 2] / 1e-6, rel=1e-4)


@given(st.floats(1e-6, 20), st.floats(1e-6, 20), st.integers(0, 100))
def test_gem_grows_with_its_exponent_between_the_geometric_mean_and_the_maximum(a: float, b: float, seed: int) -> None:
    x = np.random.default_rng(seed).uniform(0.01, 2, (1, 6, 3))
    low, high = kernels.gem(x, min(a, b)), kernels.gem(x, max(a, b))
    geometric, slack = np.exp(np.log(x).mean(axis=1)), 1e-12
    assert (geometric * (1 - slack) <= low).all()
    assert (low <= high * (1 + slack)).all()
    assert (high <= x.max(axis=1) * (1 + slack)).all()
