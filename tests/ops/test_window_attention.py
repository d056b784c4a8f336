"""Window attention against a plain computation, token by token, from the definition."""

import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import target
from swin_jax.ops.window_attention import FASTEST, pallas_tpu, window_attention

KERNELS = ("pallas_tpu_interpret", "pallas_gpu_interpret")
HEADS, CHANNELS = 2, 32  # heads of 16: the smallest that every implementation takes
# height, width, window, shift: dividing and odd sizes, maps smaller than a window, every shift.
CASES = [
    (4, 8, 4, 0),
    (8, 8, 4, 2),
    (7, 9, 4, 2),
    (5, 3, 3, 1),
    (3, 2, 4, 2),
    (2, 2, 2, 1),
    (6, 5, 5, 4),
    (3, 3, 1, 0),
]


def inputs(height: int, width: int, window: int, batch: int = 2) -> dict[str, jax.Array]:
    draw = np.random.RandomState(height * 100 + width)
    shapes = {
        "qkv": (batch, height, width, 3 * CHANNELS),
        "bias": (HEADS, window**2, window**2),
        "pad_qkv": (3 * CHANNELS,),
    }
    return {name: jnp.asarray(draw.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}


def oracle(qkv, bias, pad_qkv, *, window: int, shift: int, scale: np.ndarray, cosine: bool) -> np.ndarray:
    """Attention of each token over those of its window, by the definition: no roll, no partition, no mask array.

    A shifted window begins `shift` tokens further down and right. The one that leaves the padded canvas re-enters
    at the other side, where tokens may only see those which left (or stayed) with them on each axis.
    """
    batch, height, width, _ = qkv.shape
    canvas_height, canvas_width = (-(-size // window) * window for size in (height, width))
    canvas = np.broadcast_to(pad_qkv, (batch, canvas_height, canvas_width, 3 * CHANNELS)).astype(np.float64)
    canvas[:, :height, :width] = qkv
    canvas = canvas.reshape(batch, canvas_height, canvas_width, 3, HEADS, -1)

    def place(position: int, size: int) -> tuple[int, int, int]:
        """Window, place inside it, and on which side of the picture's edge a position of one axis lies."""
        moved = (position - shift) % size
        last = moved // window == size // window - 1
        return moved // window, moved % window, int(shift > 0 and last and position < shift)

    tokens = [(row, column) for row in range(canvas_height) for column in range(canvas_width)]
    places = {
        (row, column): (place(row, canvas_height), place(column, canvas_width)) for row, column in tokens
    }
    out = np.zeros((batch, height, width, HEADS, CHANNELS // HEADS))
    for query in [(row, column) for row in range(height) for column in range(width)]:
        (window_row, inner_row, side_row), (window_column, inner_column, side_column) = places[query]
        seen = [
            (key, (b[1], d[1]))
            for key, (b, d) in places.items()
            if (b[0], d[0], b[2], d[2]) == (window_row, window_column, side_row, side_column)
        ]
        for image, head in np.ndindex(batch, HEADS):
            q = canvas[(image, *query, 0, head)]
            keys = np.array([canvas[(image, *key, 1, head)] for key, _ in seen])
            values = np.array([canvas[(image, *key, 2, head)] for key, _ in seen])
            if cosine:
                q, keys = q / np.linalg.norm(q), keys / np.linalg.norm(keys, axis=1, keepdims=True)
            position = inner_row * window + inner_column
            biases = np.array([bias[head, position, r * window + c] for _, (r, c) in seen])
            logits = scale[head] * keys @ q + biases
            weights = np.exp(logits - logits.max())
            out[(image, *query, head)] = (weights / weights.sum()) @ values
    return out.reshape(batch, height, width, CHANNELS)


@pytest.mark.parametrize(
    ("case", "implementation"),
    [(case, name) for case in CASES for name in ("auto", "xla")]
    + [(case, name) for case in CASES[2:4] for name in KERNELS],
)
def test_forward_equals_the_definition(case: tuple[int, int, int, int], implementation: str):
    height, width, window, shift = case
    arrays = inputs(height, width, window)
    fixed = {"window": window, "shift": shift, "scale": 0.7, "implementation": implementation}
    ours = jax.jit(lambda arrays: window_attention(**arrays, **fixed))(arrays)
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    expected = oracle(**plain, window=window, shift=shift, scale=np.full(HEADS, 0.7), cosine=False)
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_cosine_attention_with_a_scale_per_head():
    arrays = inputs(7, 6, 4)
    scale = jnp.array([10.0, 3.0])
    ours = window_attention(**arrays, window=4, shift=2, scale=scale, normalize_qk=True)
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    expected = oracle(**plain, window=4, shift=2, scale=np.asarray(scale), cosine=True)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_cosine_attention_of_zero_vectors_has_a_finite_gradient():
    arrays = inputs(3, 3, 2)
    arrays["pad_qkv"] = jnp.zeros(3 * CHANNELS)

    def total(pad_qkv):
        return window_attention(
            arrays["qkv"], arrays["bias"], pad_qkv=pad_qkv, window=2, shift=1, scale=1.0, normalize_qk=True
        ).sum()

    assert np.isfinite(jax.jit(jax.grad(total))(arrays["pad_qkv"])).all()


@pytest.mark.parametrize("implementation", ["xla"])
@pytest.mark.parametrize("case", [(4, 4, 2, 1), (3, 5, 2, 1), (3, 2, 3, 0)])
def test_gradients_equal_differences_of_the_definition(case: tuple[int, int, int, int], implementation: str):
    height, width, window, shift = case
    arrays = inputs(height, width, window, batch=1)
    factor = np.random.RandomState(5).standard_normal((1, height, width, CHANNELS))

    def total(arrays: dict[str, jax.Array]) -> jax.Array:
        out = window_attention(**arrays, window=window, shift=shift, scale=0.7, implementation=implementation)
        return (out * jnp.asarray(factor, jnp.float32)).sum()

    def expected(arrays: dict[str, np.ndarray]) -> float:
        out = oracle(**arrays, window=window, shift=shift, scale=np.full(HEADS, 0.7), cosine=False)
        return float((out * factor).sum())

    gradients = jax.jit(jax.grad(total))(arrays)
    for name, gradient in gradients.items():
        plain = {key: np.asarray(value, np.float64) for key, value in arrays.items()}
        assert directional(expected, plain, name) == pytest.approx(
            float((np.asarray(gradient) * direction(gradient.shape)).sum()), rel=1e-4, abs=1e-5
        )


def direction(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(9).standard_normal(shape)


def directional(function: Callable[[dict], float], arrays: dict[str, np.ndarray], name: str) -> float:
    """Central difference of `function` along `direction` of one array, in float64."""
    step = 1e-5 * direction(arrays[name].shape)
    ahead, behind = ({**arrays, name: arrays[name] + sign * step} for sign in (1, -1))
    return (function(ahead) - function(behind)) / 2e-5


def test_attention_dropout_keeps_the_expectation():
    arrays = inputs(4, 4, 4, batch=1)

    def run(key: jax.Array) -> jax.Array:
        return window_attention(**arrays, window=4, shift=0, scale=1.0, dropout_rate=0.5, dropout_key=key)

    dropped = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4000))
    plain = window_attention(**arrays, window=4, shift=0, scale=1.0)
    assert float(jnp.abs(dropped[0] - plain).max()) > 0.05
    np.testing.assert_allclose(dropped.mean(axis=0), plain, atol=0.06)


# height, width, window, shift, heads: the windows of the published models.
PUBLISHED = [
    (14, 13, 7, 3, 2),
    (9, 16, 8, 4, 3),
    (13, 8, 7, 0, 1),
    (13, 24, 12, 6, 2),
    (16, 32, 16, 8, 1),
]
LARGEST_ON_GPU = 8  # windows, of that kernel


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("case", "implementation"),
    [
        pytest.param(case, name, marks=[pytest.mark.long] if case != PUBLISHED[0] else [])
        for case in PUBLISHED
        for name in KERNELS
        if "gpu" not in name or case[2] <= LARGEST_ON_GPU
    ],
)
def test_kernels_equal_plain_operations(
    case: tuple[int, int, int, int, int], dtype: str, implementation: str
):
    height, width, window, shift, heads = case
    draw = np.random.RandomState(window)
    channels, tokens = 16 * heads, window**2
    shapes = {"qkv": (1, height, width, 3 * channels), "pad_qkv": (3 * channels,)}
    arrays = {name: jnp.asarray(draw.standard_normal(shape), dtype) for name, shape in shapes.items()}
    arrays["bias"] = jnp.asarray(draw.standard_normal((heads, tokens, tokens)), jnp.float32)
    factor = jnp.asarray(draw.standard_normal((1, height, width, channels)), jnp.float32)

    def total(arrays: dict[str, jax.Array], implementation: str) -> tuple[jax.Array, jax.Array]:
        fixed = {"window": window, "shift": shift, "scale": 0.25, "implementation": implementation}
        out = window_attention(**arrays, **fixed)
        return (out.astype(jnp.float32) * factor).sum(), out

    run = jax.jit(jax.grad(total, has_aux=True), static_argnums=1)
    ours, expected = run(arrays, implementation), run(arrays, "xla")
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        one, other = (np.asarray(value, np.float32) for value in (one, other))
        tolerance = (2e-6 if dtype == "float32" else 0.02) * np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=tolerance)


@pytest.mark.parametrize("shift", [0, 3])
def test_a_map_that_does_not_fit_the_chip_passes_through_row_by_row(
    shift: int, monkeypatch: pytest.MonkeyPatch
):
    arrays = inputs(13, 7, 4)
    factor = jnp.asarray(np.random.RandomState(1).standard_normal((2, 13, 7, CHANNELS)), jnp.float32)

    def total(arrays: dict[str, jax.Array], implementation: str) -> tuple[jax.Array, jax.Array]:
        fixed = {"window": 4, "shift": shift, "scale": 0.7, "implementation": implementation}
        out = window_attention(**arrays, **fixed)
        return (out * factor).sum(), out

    def copies() -> bool:
        return "dma_start" in str(jax.make_jaxpr(lambda arrays: total(arrays, KERNELS[0]))(arrays))

    assert not copies()
    monkeypatch.setattr(target, "MOST_ON_CHIP", 1)
    assert copies()
    run = jax.jit(jax.grad(total, has_aux=True), static_argnums=1)
    ours, expected = run(arrays, KERNELS[0]), run(arrays, "xla")
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6 * float(jnp.abs(other).max()))


@pytest.mark.parametrize(
    ("kind", "width", "dtype", "message"),
    [
        ("TPU v3", 4, "bfloat16", "its products of bfloat16 are none of a TPU v3"),
        ("TPU v4", 1280, "float32", "a row of 4 x 1280 x 96 needs .* MiB of on-chip memory"),
    ],
)
def test_what_a_generation_of_chips_cannot_compute_is_refused(
    kind: str, width: int, dtype: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(target, "device_kind", lambda: kind)
    monkeypatch.setattr(pallas_tpu, "LONGEST", 10**6)
    arrays = {name: value.astype(dtype) for name, value in inputs(4, width, 4).items()}
    with pytest.raises(ValueError, match=message):
        window_attention(**arrays, window=4, shift=0, scale=1.0, implementation=KERNELS[0])


def test_auto_takes_the_kernel_of_the_platform_or_says_why_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setitem(FASTEST, "cpu", "pallas_tpu_interpret")
    arrays = inputs(4, 4, 4, batch=1)

    def traced(**changes: object) -> str:
        fixed = {"window": 4, "shift": 2, "scale": 1.0} | changes
        return str(jax.make_jaxpr(lambda arrays: window_attention(**arrays, **fixed))(arrays))

    assert "pallas_call" in traced()
    with caplog.at_level(logging.WARNING, logger="swin_jax"):
        assert "pallas_call" not in traced(normalize_qk=True)
        assert "pallas_call" not in traced(normalize_qk=True)
    assert [record.getMessage() for record in caplog.records] == [
        "window attention runs as plain XLA operations instead of pallas_tpu_interpret: it has no cosine attention"
    ]


@pytest.mark.parametrize("implementation", KERNELS)
def test_a_named_kernel_refuses_what_it_cannot_compute(implementation: str):
    message = (
        f"implementation '{implementation}' cannot compute this window attention: it has no cosine attention"
    )
    with pytest.raises(ValueError, match=message):
        window_attention(
            **inputs(4, 4, 4),
            window=4,
            shift=0,
            scale=1.0,
            normalize_qk=True,
            implementation=implementation,
        )


def test_bfloat16_computes_logits_and_softmax_in_float32():
    arrays = inputs(8, 8, 4)
    half = {name: value.astype(jnp.bfloat16) for name, value in arrays.items()}
    half["bias"] = arrays["bias"]

    def run(arrays):
        return window_attention(**arrays, window=4, shift=2, scale=0.5)

    out = run(half)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), run(arrays), atol=0.05)
    equations = jax.make_jaxpr(run)(half).jaxpr.eqns
    exponential = next(e for e in equations if e.primitive.name == "exp")
    assert exponential.invars[0].aval.dtype == jnp.float32
    scores, values = (e for e in equations if e.primitive.name == "dot_general")
    assert {operand.aval.dtype for e in (scores, values) for operand in e.invars} == {jnp.dtype(jnp.bfloat16)}
    assert scores.outvars[0].aval.dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"implementation": "xlla"},
            "implementation must be one of auto, xla, pallas_tpu, .*, got 'xlla'",
        ),
        ({"shift": 4}, "shift must be at least 0 and below the window 4, got 4"),
        ({"window": 3}, r"bias must be \[heads, 3\*\*2, 3\*\*2\] for window 3"),
        (
            {"qkv": jnp.zeros((1, 4, 4, 15)), "pad_qkv": jnp.zeros(15)},
            "qkv must have 3 . 2 . n channels for a bias of 2 heads, got 15",
        ),
        ({"pad_qkv": jnp.zeros(6)}, "pad_qkv must be one token of 96 channels"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict, message: str):
    arguments = {**inputs(4, 4, 4), "window": 4, "shift": 0, "scale": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        window_attention(**arguments)
