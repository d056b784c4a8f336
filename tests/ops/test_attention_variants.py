"""What the paper compares shifted windows with: shifts by padding, sliding windows, Performer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import windows
from swin_jax.ops.performer import feature_count, orthogonal_directions, performer_attention
from swin_jax.ops.sliding_attention import sliding_attention, sliding_attention_naive
from swin_jax.ops.window_attention import window_attention
from swin_jax.ops.window_attention.padding import shifted_by_padding, window_parts


def drawn(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def cyclic_pairs(height: int, width: int, window: int, shift: int) -> set[tuple[int, int]]:
    """Which token attends to which, by the windows and the mask of the cyclic form."""
    token = jnp.arange(height * width, dtype=jnp.int32).reshape(1, height, width, 1)
    cut = np.asarray(windows.cut(token, window, shift, jnp.zeros(1)))[0, ..., 0]
    return pairs(cut, np.asarray(windows.shift_mask(height, width, window, shift)) == 0)


def padded_pairs(height: int, width: int, window: int, shift: int) -> set[tuple[int, int]]:
    """The same of the padded form; what surrounds the map is token -1."""
    token = np.arange(height * width).reshape(height, width)
    canvas = np.pad(token, (window - shift, shift), constant_values=-1)
    cut = np.asarray(windows.partition(jnp.asarray(canvas)[None, ..., None], window))[0, ..., 0]
    part = window_parts(height, width, window, shift)
    assert ((cut >= 0) == (part == 1)).all()
    return {pair for pair in pairs(cut, part[:, :, None] == part[:, None]) if min(pair) >= 0}


def pairs(cut: np.ndarray, together: np.ndarray) -> set[tuple[int, int]]:
    return {(int(cut[w, i]), int(cut[w, j])) for w, i, j in zip(*np.nonzero(together), strict=True)}


@pytest.mark.parametrize(
    ("height", "width", "window", "shift"), [(8, 12, 4, 2), (14, 14, 7, 3), (6, 9, 3, 1)]
)
def test_padding_and_cyclic_shift_have_the_same_attention_sets(height, width, window, shift):
    assert padded_pairs(height, width, window, shift) == cyclic_pairs(height, width, window, shift)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 9)])
def test_padding_and_cyclic_shift_give_the_same_numbers(height, width):
    window, shift, heads, channels = 4, 2, 2, 8
    inputs = {
        "window": window,
        "shift": shift,
        "scale": 0.5,
        "pad_qkv": drawn(2, 3 * channels),
    }
    qkv, bias = drawn(0, 2, height, width, 3 * channels), drawn(1, heads, window**2, window**2)
    cyclic, padded = window_attention(qkv, bias, **inputs), shifted_by_padding(qkv, bias, **inputs)
    np.testing.assert_allclose(padded, cyclic, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "window"), [(14, 7, 7), (9, 11, 3), (2, 3, 5), (5, 8, 5)])
def test_sliding_by_tiles_equals_the_unfolded_form(height, width, window):
    heads, channels = 2, 6
    qkv, bias = drawn(0, 2, height, width, 3 * channels), drawn(1, window**2, heads)
    weights = drawn(2, 2, height, width, channels)

    def run(attend):
        def total(qkv, bias):
            out = attend(qkv, bias, window=window)
            return jnp.sum(out * weights), out

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(qkv, bias)

    ((_, tiles), of_tiles), ((_, naive), of_naive) = run(sliding_attention), run(sliding_attention_naive)
    np.testing.assert_allclose(tiles, naive, atol=1e-5)
    for ours, theirs in zip(of_tiles, of_naive, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max() + 1))


def test_a_sliding_window_by_scalar_loops():
    height, width, window, channels = 4, 5, 3, 2
    qkv, bias = np.asarray(drawn(3, 1, height, width, 3 * channels)), np.asarray(drawn(4, window**2, 1))
    q, k, v = np.split(qkv[0], 3, axis=-1)
    expected = np.zeros((height, width, channels))
    for y in range(height):
        for x in range(width):
            logits, values = [], []
            for number, (dy, dx) in enumerate((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
                inside = 0 <= y + dy < height and 0 <= x + dx < width
                key = k[y + dy, x + dx] if inside else np.zeros(channels)
                values.append(v[y + dy, x + dx] if inside else np.zeros(channels))
                logits.append(q[y, x] @ key / np.sqrt(channels) + bias[number, 0])
            weights = np.exp(logits) / np.exp(logits).sum()
            expected[y, x] = weights @ np.array(values)
    found = sliding_attention(jnp.asarray(qkv), jnp.asarray(bias), window=window)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_an_even_sliding_window_and_another_bias_are_refused():
    with pytest.raises(ValueError, match="must be odd, got 4"):
        sliding_attention(drawn(0, 1, 4, 4, 6), drawn(1, 16, 1), window=4)
    with pytest.raises(ValueError, match=r"5\*\*2 offsets, got 9"):
        sliding_attention_naive(drawn(0, 1, 4, 4, 6), drawn(1, 9, 1), window=5)


def test_directions_are_orthogonal_in_blocks_and_as_long_as_gaussian_ones():
    directions = np.asarray(orthogonal_directions(jax.random.key(0), 4096, 16))
    products = directions[:16] @ directions[:16].T
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-4)
    assert np.mean(np.sum(directions**2, axis=1)) == pytest.approx(16, rel=0.05)
    assert feature_count(32) == 111


def test_performer_converges_to_softmax_attention():
    q, k, v = (0.4 * drawn(seed, 2, 12, 2, 8) for seed in range(3))
    exact = jax.nn.dot_product_attention(q, k, v)

    @jax.jit(static_argnums=1)
    def error(key, count):
        found = performer_attention(q, k, v, orthogonal_directions(key, count, 8))
        return jnp.sqrt(jnp.mean((found - exact) ** 2))

    means = [
        float(np.mean([error(jax.random.key(seed), count) for seed in range(4)]))
        for count in (128, 1024, 8192)
    ]
    # The error of a mean of m draws falls as the root of m.
    assert means[0] / means[1] == pytest.approx(8**0.5, rel=0.4)
    assert means[1] / means[2] == pytest.approx(8**0.5, rel=0.4)
    assert means[2] < 0.02
