"""RandAugment (Cubuk et al., 2019) as timm 0.4.12 has it: `rand-m9-mstd0.5-inc1` of the published recipes.

Each picture undergoes `n` applications of an operation drawn uniformly out of fifteen, with replacement; each is
carried out with probability one half, at a magnitude drawn around `m`. Under vmap every branch of a switch would run,
so the fifteen are factored into three: an affine resampling, a table of 256 entries per channel, and a blend with a
degenerate picture, of which each row takes one.
"""

import dataclasses
import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from swin_jax.ops.augment.affine import Matrix, resample, rotation, shear_and_shift
from swin_jax.ops.augment.basic import row_keys
from swin_jax.ops.augment.color import (
    Picture,
    Table,
    autocontrasted,
    blend,
    brightened_below_128,
    equalized,
    grey,
    identity_table,
    look_up,
    mean_grey,
    posterized,
    smooth,
    solarized,
)

OPERATIONS = (
    "auto_contrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
ENHANCEMENTS = ("color", "contrast", "brightness", "sharpness")
NONE = len(OPERATIONS)
"""The number of the operation that does nothing."""
PROBABILITY = 0.5  # that a drawn operation is carried out
LARGEST = 10.0  # magnitude
FILL = (124, 116, 104)  # the mean colour of ImageNet


@dataclasses.dataclass(frozen=True)
class Policy:
    """What `rand-...` says.

    Args:
        magnitude: mean of the magnitudes, 0 to 10.
        std: their standard deviation, before they are clipped to 0..10.
        operations: applications to each picture.
        increasing: posterize, solarize and the four enhancements grow stronger with the magnitude; else a greater
            magnitude posterizes and solarizes less, and enhances from 0.1 to 1.9.
    """

    magnitude: float = 10.0
    std: float = 0.0
    operations: int = 2
    increasing: bool = False


class Application(NamedTuple):
    """One operation on one picture."""

    operation: Int[Array, ""]  # index into OPERATIONS, or NONE
    magnitude: Float[Array, ""]  # 0 to 10
    sign: Float[Array, ""]  # 1 or -1, where the operation has one


def parse_policy(text: str) -> Policy:
    """The policy in "rand-m9-mstd0.5-inc1": parts in any order, each at most once.

    Raises:
        ValueError: the text is not of that form, or a number is out of range.
    """
    name, *parts = text.split("-")
    form = 'expected "rand" and any of -m (0 to 10), -n (1 or more), -mstd (0 or more), -inc1, as rand-m9-mstd0.5-inc1'
    if name != "rand":
        raise ValueError(f"augment.rand_augment is {text!r}; {form}")
    values: dict[str, float] = {}
    for part in parts:
        found = re.fullmatch(r"(m|n|mstd|inc)(\d+(?:\.\d+)?)", part)
        if found is None or found[1] in values:
            reason = "cannot be read" if found is None else f"repeats {found[1]}"
            raise ValueError(f"augment.rand_augment is {text!r}, where {part!r} {reason}; {form}")
        values[found[1]] = float(found[2])
    count = values.get("n", 2.0)
    if values.get("m", LARGEST) > LARGEST or count < 1 or count % 1 or values.get("inc", 1.0) != 1.0:
        raise ValueError(f"augment.rand_augment is {text!r}, which is out of range; {form}")
    return Policy(values.get("m", LARGEST), values.get("mstd", 0.0), int(count), "inc" in values)


def rand_augment(
    images: UInt8[Array, "batch height width 3"],
    key: jax.Array,
    policy: Policy,
    fill: tuple[int, int, int] = FILL,
) -> UInt8[Array, "batch height width 3"]:
    """Each picture of the global batch under its own applications of `policy`."""
    drawn = draw_applications(key, images.shape[0], policy)
    one = partial(apply, increasing=policy.increasing, fill=fill)

    def step(images: Array, chosen: Application) -> tuple[Array, None]:
        return jax.vmap(one)(images, chosen), None

    in_turn = jax.tree.map(lambda values: values.T, drawn)
    return jax.lax.scan(step, images, in_turn)[0]


def draw_applications(key: jax.Array, rows: int, policy: Policy) -> Application:
    """`policy.operations` applications for each row of the global batch: arrays [rows, operations]."""

    def of_row(key: jax.Array) -> Application:
        which, carried, magnitude, sign = jax.random.split(key, 4)
        shape = (policy.operations,)
        operation = jax.random.randint(which, shape, 0, len(OPERATIONS))
        level = policy.magnitude + policy.std * jax.random.normal(magnitude, shape)
        return Application(
            jnp.where(jax.random.bernoulli(carried, PROBABILITY, shape), operation, NONE),
            jnp.clip(level, 0.0, LARGEST),
            jax.random.rademacher(sign, shape, jnp.float32),
        )

    return jax.vmap(of_row)(row_keys(key, rows))


def apply(image: Picture, application: Application, increasing: bool, fill: tuple[int, ...]) -> Picture:
    """One application to one picture [H, W, 3].

    All three stages read the picture itself, not one another's result: chained, the compiler would fuse them and
    compute the first one anew for every neighbour that a later one looks at.
    """
    height, width, _ = image.shape
    found = look_up(image, _table(application, image, increasing))
    found = jnp.where(_is(application, *ENHANCEMENTS), _enhanced(image, application, increasing), found)
    moved = resample(image, _matrix(application, height, width), fill)
    return jnp.where(_is(application, *GEOMETRIC), moved, found)


def _is(application: Application, *names: str) -> Bool[Array, ""]:
    numbers = jnp.asarray([OPERATIONS.index(name) for name in names])
    return jnp.any(application.operation == numbers)


def _matrix(application: Application, height: int, width: int) -> Matrix:
    """Of the geometric operations."""
    signed = application.sign * application.magnitude / LARGEST

    def amount(name: str, largest: float) -> Float[Array, ""]:
        return jnp.where(_is(application, name), signed * largest, 0.0)

    return jnp.where(
        _is(application, "rotate"),
        rotation(30.0 * signed, height, width),
        shear_and_shift(
            shear_x=amount("shear_x", 0.3),
            shear_y=amount("shear_y", 0.3),
            x=amount("translate_x", 0.45 * width),
            y=amount("translate_y", 0.45 * height),
        ),
    )


def _table(application: Application, image: Picture, increasing: bool) -> Table:
    """Of the operations that look at one value at a time; else the identity."""
    values = identity_table(image.shape[-1])
    share = application.magnitude / LARGEST

    def level(largest: int) -> Int[Array, ""]:
        return jnp.floor(share * largest).astype(jnp.int32)

    bits, threshold = (4 - level(4), 256 - level(256)) if increasing else (level(4), level(256))
    equalize = _is(application, "equalize")
    tables = {
        "auto_contrast": autocontrasted(values, image),
        "equalize": equalized(values, image, equalize),
        "invert": 255 - values,
        "posterize": posterized(values, bits),
        "solarize": solarized(values, threshold),
        "solarize_add": brightened_below_128(values, level(110)),
    }
    return jnp.select([_is(application, name) for name in tables], list(tables.values()), values)


def _enhanced(image: Picture, application: Application, increasing: bool) -> Picture:
    """Blended with the degenerate picture of an enhancement."""
    share = application.magnitude / LARGEST
    factor = 1.0 + application.sign * 0.9 * share if increasing else 0.1 + 1.8 * share
    luminance = grey(image)
    degenerates = {
        "color": luminance[:, :, None],
        "contrast": mean_grey(luminance)[None, None, None],
        "brightness": jnp.zeros((1, 1, 1), jnp.uint8),
        "sharpness": smooth(image),
    }
    degenerate = image
    for name, picture in degenerates.items():
        degenerate = jnp.where(_is(application, name), picture, degenerate)
    return blend(degenerate, image, factor)
