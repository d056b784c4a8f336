"""Rows of windows that a TPU kernel itself copies from and to HBM, for maps that are too large for the chip's memory.

The grid is `(picture, row of windows)`, in order. While a row is computed the next one arrives and the last one
leaves, so that a map is read once and written once. A (shifted) row of windows is whole rows of the map in one piece;
the last one of a shifted map goes on at the map's first rows and is two.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import DTypeLike

from swin_jax.ops.window_attention.tpu_rows import Geometry

PLACES = 2  # one that is computed with, one that is copied


class Passing(NamedTuple):
    """Where the rows of one map wait: `[PLACES, window, width, channels]`, and a semaphore for each place."""

    rows: Any
    semaphores: Any


class Stream(NamedTuple):
    """A map in HBM `[batch, height, width, channels]`, its rows on the way, and the canvas they are computed in."""

    picture: Any
    passing: Passing
    canvas: Any


def passing(geometry: Geometry, channels: int, dtype: DTypeLike) -> Passing:
    """The scratch that a map needs."""
    shape = (PLACES, geometry.window, geometry.width, channels)
    return Passing(pltpu.VMEM(shape, jnp.dtype(dtype)), pltpu.SemaphoreType.DMA((PLACES,)))


def at_first() -> Any:
    """Whether this is the grid's first step."""
    return _step() == 0


def arrive(geometry: Geometry, streams: Sequence[Stream]) -> None:
    """Brings this step's rows into their canvases, and sends for those of the next step."""
    step, steps = _step(), pl.num_programs(0) * pl.num_programs(1)

    @pl.when(step == 0)
    def _first() -> None:
        _each(geometry, streams, step, _read, _start)

    @pl.when(step + 1 < steps)
    def _next() -> None:
        _each(geometry, streams, step + 1, _read, _start)

    _each(geometry, streams, step, _read, _wait)
    for stream in streams:
        rows = stream.passing.rows[jax.lax.rem(step, PLACES)]
        stream.canvas[:, : geometry.width, :] = rows.astype(jnp.float32)


def leave(geometry: Geometry, streams: Sequence[Stream]) -> None:
    """Sends this step's rows to HBM; at the last step waits until all are there."""
    step, steps = _step(), pl.num_programs(0) * pl.num_programs(1)

    @pl.when(step >= PLACES)
    def _free() -> None:
        _each(geometry, streams, step - PLACES, _write, _wait)

    for stream in streams:
        rows = stream.canvas[:, : geometry.width, :].astype(stream.passing.rows.dtype)
        stream.passing.rows[jax.lax.rem(step, PLACES)] = rows
    _each(geometry, streams, step, _write, _start)

    @pl.when(step + 1 == steps)
    def _last() -> None:
        _each(geometry, streams, step, _write, _wait)

        @pl.when(step > 0)
        def _before() -> None:
            _each(geometry, streams, step - 1, _write, _wait)


def _step() -> Any:
    return pl.program_id(0) * pl.num_programs(1) + pl.program_id(1)


def _read(outside: Any, inside: Any, semaphore: Any) -> Any:
    return pltpu.make_async_copy(outside, inside, semaphore)


def _write(outside: Any, inside: Any, semaphore: Any) -> Any:
    return pltpu.make_async_copy(inside, outside, semaphore)


def _start(copy: Any) -> None:
    copy.start()


def _wait(copy: Any) -> None:
    copy.wait()


def _each(
    geometry: Geometry,
    streams: Sequence[Stream],
    step: Any,
    copy: Callable[[Any, Any, Any], Any],
    act: Callable[[Any], None],
) -> None:
    """Acts on the copies of a step's row of windows."""
    picture, row = jax.lax.div(step, geometry.rows), jax.lax.rem(step, geometry.rows)
    place = jax.lax.rem(step, PLACES)

    def piece(start: Any, inner: int, count: int) -> None:
        for stream in streams:
            outside = stream.picture.at[picture, pl.ds(start, count)]
            inside = stream.passing.rows.at[place, pl.ds(inner, count)]
            act(copy(outside, inside, stream.passing.semaphores.at[place]))

    window, shift = geometry.window, geometry.shift
    if not shift:
        piece(row * window, 0, window)
        return

    @pl.when(row < geometry.rows - 1)
    def _whole() -> None:
        piece(row * window + shift, 0, window)

    @pl.when(row == geometry.rows - 1)
    def _wrapped() -> None:
        piece(geometry.height - window + shift, 0, window - shift)
        piece(0, window - shift, shift)
