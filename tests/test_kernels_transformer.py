"""Kernels of the vision transformer against an obvious second implementation and their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neupims_sim import kernels
from neupims_sim.errors import InputError
from neupims_sim.kernels import BlockWeights, Linear, Norm

BATCH, TOKENS, CHANNELS, HEADS, HIDDEN = 2, 5, 12, 3, 20


def random_block(dtype: type = np.float64) -> tuple[np.ndarray, BlockWeights]:
    random = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(dtype)

    def layer(inputs: int, outputs: int) -> Linear:
        return Linear(draw(inputs, outputs) / dtype(math.sqrt(inputs)), draw(outputs))

    weights = BlockWeights(
        norm1=Norm(draw(CHANNELS), draw(CHANNELS)),
        qkv=layer(CHANNELS, 3 * CHANNELS),
        projection=layer(CHANNELS, CHANNELS),
        norm2=Norm(draw(CHANNELS), draw(CHANNELS)),
        up=layer(CHANNELS, HIDDEN),
        down=layer(HIDDEN, CHANNELS),
    )
    return draw(BATCH, TOKENS, CHANNELS), weights


def obvious_norm(vector: np.ndarray, norm: Norm, eps: float) -> np.ndarray:
    return (vector - np.mean(vector)) / math.sqrt(np.var(vector) + eps) * norm.gain + norm.shift


def obvious_gelu(value: float) -> float:
    return value / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))


def obvious_block(image: np.ndarray, weights: BlockWeights, eps: float) -> np.ndarray:
    """One image, token by token and head by head."""
    size = CHANNELS // HEADS
    normed = [obvious_norm(token, weights.norm1, eps) for token in image]
    qkv = [token @ weights.qkv.weight + weights.qkv.bias for token in normed]
    output = []
    for t, token in enumerate(image):
        heads = []
        for h in range(HEADS):
            query, key, value = (
                slice(part * CHANNELS + h * size, part * CHANNELS + (h + 1) * size) for part in range(3)
            )
            weight = [math.exp(float(qkv[t][query] @ other[key]) / math.sqrt(size)) for other in qkv]
            heads.append(sum(w * other[value] for w, other in zip(weight, qkv, strict=True)) / sum(weight))
        x = token + np.concatenate(heads) @ weights.projection.weight + weights.projection.bias
        hidden = obvious_norm(x, weights.norm2, eps) @ weights.up.weight + weights.up.bias
        output.append(x + np.array([obvious_gelu(v) for v in hidden]) @ weights.down.weight + weights.down.bias)
    return np.array(output)


def test_a_vit_block_equals_the_obvious_loops() -> None:
    x, weights = random_block()
    expected = [obvious_block(image, weights, 1e-6) for image in x]
    np.testing.assert_allclose(kernels.vit_block(x, weights, HEADS), expected, rtol=1e-12, atol=1e-12)
    assert np.abs(kernels.vit_block(x, weights, HEADS, eps=0.5) - expected).max() > 0.1, "eps matters"


def test_a_vit_block_keeps_float32_and_agrees_with_float64() -> None:
    x, weights = random_block(np.float32)
    result = kernels.vit_block(x, weights, HEADS)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, kernels.vit_block(*random_block(), HEADS), atol=2e-5)


def test_a_vit_block_moves_with_the_order_of_the_tokens() -> None:
    x, weights = random_block()
    order = [3, 0, 4, 1, 2]
    np.testing.assert_allclose(
        kernels.vit_block(x[:, order], weights, HEADS), kernels.vit_block(x, weights, HEADS)[:, order], atol=1e-12
    )


def test_attention_of_the_last_token_is_decode_attention() -> None:
    queries, keys, values = np.random.default_rng(3).normal(size=(3, TOKENS, HEADS, CHANNELS // HEADS))
    whole = kernels.multi_head_attention(*(a.reshape(1, TOKENS, CHANNELS) for a in (queries, keys, values)), HEADS)
    np.testing.assert_allclose(whole[0, -1], kernels.decode_attention(queries[-1], keys, values).ravel(), rtol=1e-12)


def test_layer_norm_has_the_mean_of_the_shift_and_the_deviation_of_the_gain() -> None:
    x = np.random.default_rng(4).normal(3, 2, (6, 50))
    normalized = kernels.layer_norm(x, Norm(np.full(50, 2.0), np.full(50, 5.0)), eps=1e-12)
    np.testing.assert_allclose(normalized.mean(axis=1), 5, rtol=1e-10)
    np.testing.assert_allclose(normalized.std(axis=1), 2, rtol=1e-10)


def test_gelu_is_within_5e_4_of_the_form_with_the_error_function() -> None:
    x = np.linspace(-6, 6, 2001)
    exact = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x]
    assert 1e-4 < np.abs(kernels.gelu(x) - exact).max() < 5e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_sums_to_one_and_does_not_overflow(dtype) -> None:
    probabilities = kernels.softmax(np.array([[1e4, 1e4, -1e4], [1, 2, 3]], dtype))
    assert probabilities.dtype == dtype
    np.testing.assert_allclose(probabilities[0], [0.5, 0.5, 0])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert kernels.attention_probabilities(probabilities, 64).dtype == dtype


X, WEIGHTS = random_block()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.vit_block(X, WEIGHTS, 5), "multi_head_attention: heads=5 does not divide the 12 channels"),
        (lambda: kernels.vit_block(X, WEIGHTS, 0), "multi_head_attention: heads=0 must be at least 1"),
        (
            lambda: kernels.vit_block(X[0], WEIGHTS, 3),
            r"vit_block: x has shape=\[5, 12\], expected \[batch, tokens, channels\]",
        ),
        (lambda: kernels.vit_block(X * np.nan, WEIGHTS, 3), r"vit_block: x\[0, 0, 0\]=nan"),
        (
            lambda: kernels.vit_block(X.astype(np.float32), WEIGHTS, 3),
            "vit_block: qkv has dtype=float64, expected float32",
        ),
        (
            lambda: kernels.vit_block(X, WEIGHTS._replace(qkv=WEIGHTS.projection), 3),
            r"vit_block: qkv has shape=\[12, 12\], expected \[12, 36\]",
        ),
        (
            lambda: kernels.layer_norm(X, Norm(X[0, 0], X[0, 0, :3])),
            r"layer_norm: shift has shape=\[3\], expected \[12\]",
        ),
        (lambda: kernels.linear(X, WEIGHTS.down), r"linear: weight has shape=\[20, 12\], expected \[12, 12\]"),
        (
            lambda: kernels.linear(X, Linear(WEIGHTS.up.weight, WEIGHTS.down.bias)),
            r"linear: bias has shape=\[12\], expected \[20\]",
        ),
        (
            lambda: kernels.multi_head_attention(X, X[:, :2], X, 3),
            r"multi_head_attention: keys has shape=\[2, 2, 12\], expected \[2, 5, 12\]",
        ),
    ],
)
def test_bad_input_is_refused_with_one_line(call, message) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
