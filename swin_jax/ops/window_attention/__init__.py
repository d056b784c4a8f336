"""Window attention: one entry point, several implementations that give the same numbers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Key

from swin_jax.ops import target
from swin_jax.ops.window_attention import pallas_gpu, pallas_tpu, xla
from swin_jax.ops.window_attention.kernel_case import say_once


class Implementation(NamedTuple):
    """One way to compute window attention.

    Attributes:
      attend: takes the arguments of `window_attention` but `implementation`.
      unsupported: takes the same; why it cannot compute them, in a sentence, or "".
      kernel: whether the compiler cannot split it over devices.
    """

    attend: Callable[..., Array]
    unsupported: Callable[..., str] = lambda *_, **__: ""
    kernel: bool = True


IMPLEMENTATIONS: dict[str, Implementation] = {
    "xla": Implementation(xla.window_attention, kernel=False),
    "pallas_tpu": Implementation(pallas_tpu.window_attention, pallas_tpu.unsupported),
    # The TPU kernel run by jax operations, to test it anywhere.
    "pallas_tpu_interpret": Implementation(
        functools.partial(pallas_tpu.window_attention, interpret=True), pallas_tpu.unsupported
    ),
    "pallas_gpu": Implementation(pallas_gpu.window_attention, pallas_gpu.unsupported),
    "pallas_gpu_interpret": Implementation(
        functools.partial(pallas_gpu.window_attention, interpret=True), pallas_gpu.unsupported
    ),
}

# Kernels of half a block have the attention kernel where a half cannot be one (`models/half_blocks.py`).
IMPLEMENTATIONS["pallas_tpu_blocks"] = IMPLEMENTATIONS["pallas_tpu"]
IMPLEMENTATIONS["pallas_tpu_blocks_interpret"] = IMPLEMENTATIONS["pallas_tpu_interpret"]

FASTEST: dict[str, str] = {"tpu": "pallas_tpu"}
"""The implementation that "auto" takes on a platform; "xla" on others, and where it cannot compute the case."""


def window_attention(
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    shift: int,
    pad_qkv: Float[Array, " padding"],
    scale: float | Float[Array, " heads"],
    normalize_qk: bool = False,
    implementation: str = "auto",
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "batch height width channels"]:
    """Attention within (shifted) windows of a map in picture order; Swin (Liu et al., 2021) section 3.2, eq.
    3-4.

    Padding to whole windows, cyclic shift, partition, mask and their inverses all happen inside: what goes in
    and what comes out is a map, row by row.

    Args:
      qkv: queries, keys and values of every token, channels `(q, k, v)`, each head-major. Any float type; the
        products run in it, logits and softmax in float32.
      bias: added to the logits `[head, query, key]`; `tokens = window**2`.
      window: side of a window in tokens.
      shift: cyclic shift in tokens, `0 <= shift < window`. With 0 nothing is masked; otherwise tokens that
        were no neighbours before the shift get -100 added to their logit.
      pad_qkv: query, key and value of the tokens that fill the map below and to the right up to whole
        windows. They take part in attention as in the published dense code, where zeros are padded in before
        the projection: pass the projection's bias.
      scale: factor of the queries, one for all heads or one per head.
      normalize_qk: divides queries and keys by their norm first (Swin V2's cosine attention).
      implementation: a name of `IMPLEMENTATIONS`, or "auto": the fastest on the platform that the program is traced
        for. Where that one cannot compute the case plain XLA does, and a logged sentence says so. A program over
        several devices has to be traced within `ops.target.for_mesh`: compilers cannot split a kernel.
      dropout_rate: rate at which attention weights are dropped if `dropout_key` is given.
      dropout_key: random key of that dropout; None switches it off.

    Returns:
      The attended values `[batch, height, width, channels]`, heads concatenated, in the type of `qkv`.

    Raises:
      ValueError: if shapes, window and shift do not fit together, the implementation has no such name, or the named
        one cannot compute the case.
    """
    _check(qkv, bias, window, shift, pad_qkv)
    fixed: dict[str, Any] = {
        "window": window,
        "shift": shift,
        "scale": scale,
        "normalize_qk": normalize_qk,
        "dropout_rate": dropout_rate,
        "dropout_key": dropout_key,
    }
    chosen = _choose(implementation, qkv, bias, pad_qkv, fixed)
    if not chosen.kernel:
        return chosen.attend(qkv, bias, pad_qkv=pad_qkv, **fixed)

    def attend(qkv: Array, bias: Array, pad_qkv: Array) -> Array:
        return chosen.attend(qkv, bias, pad_qkv=pad_qkv, **fixed)

    return target.on_each_device(attend, (qkv, bias, pad_qkv), split=(True, False, False))


def attention_weights(
    qkv: Float[Array, "batch height width channels3"],
    bias: Float[Array, "heads tokens tokens"],
    *,
    window: int,
    shift: int,
    pad_qkv: Float[Array, " padding"],
    scale: float | Float[Array, " heads"],
    normalize_qk: bool = False,
) -> Float[Array, "batch windows heads queries keys"]:
    """The probabilities with which `window_attention` weighs values, float32, from the code that it runs itself.

    Arguments and errors are those of `window_attention`. Windows are those of the padded and shifted map, see
    `swin_jax.ops.windows.cut`; heads, queries and keys are in the order of `bias`.
    """
    _check(qkv, bias, window, shift, pad_qkv)
    return xla.weights_and_values(
        qkv,
        bias,
        window=window,
        shift=shift,
        pad_qkv=pad_qkv,
        scale=scale,
        normalize_qk=normalize_qk,
    )[0]


def implementation_names() -> tuple[str, ...]:
    """What `implementation` may be."""
    return ("auto", *IMPLEMENTATIONS)


def _choose(name: str, qkv: Array, bias: Array, pad_qkv: Array, fixed: dict[str, Any]) -> Implementation:
    """The named implementation, or for "auto" the platform's fastest that can compute the case."""
    if name not in implementation_names():
        raise ValueError(f"implementation must be one of {', '.join(implementation_names())}, got {name!r}")
    wanted = FASTEST.get(target.platform(), "xla") if name == "auto" else name
    reason = IMPLEMENTATIONS[wanted].unsupported(qkv, bias, pad_qkv=pad_qkv, **fixed)
    if reason and name != "auto":
        raise ValueError(f"implementation {name!r} cannot compute this window attention: {reason}")
    if reason:
        say_once(f"window attention runs as plain XLA operations instead of {wanted}: {reason}")
        wanted = "xla"
    return IMPLEMENTATIONS[wanted]


def _check(qkv: Array, bias: Array, window: int, shift: int, pad_qkv: Array) -> None:
    heads, tokens, _ = bias.shape
    if qkv.shape[-1] % (3 * heads):
        raise ValueError(
            f"qkv must have 3 * {heads} * n channels for a bias of {heads} heads, got {qkv.shape[-1]}"
        )
    if window < 1 or tokens != window * window or bias.shape[2] != tokens:
        raise ValueError(
            f"bias must be [heads, {window}**2, {window}**2] for window {window}, got {bias.shape}"
        )
    if not 0 <= shift < window:
        raise ValueError(f"shift must be at least 0 and below the window {window}, got {shift}")
    if pad_qkv.shape != qkv.shape[-1:]:
        raise ValueError(f"pad_qkv must be one token of {qkv.shape[-1]} channels, got shape {pad_qkv.shape}")
