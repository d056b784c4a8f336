"""Mixup (Zhang et al., 2017) and cutmix (Yun et al., 2019), one or the other for each group of rows.

The published recipes draw one lambda per device's batch of 128. Here it is drawn per group of 128 consecutive rows of
the global batch, however many devices hold them. Row 2i is mixed with row 2i + 1 and the other way round. The
reference mirrors its batch instead; rows stand in random order, so any fixed pairing of them has the same
distribution, and pairs of neighbours stay on one device whether it holds a whole group or two rows of it.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from swin_jax.ops.augment.basic import row_keys
from swin_jax.ops.augment.erasing import Box

GROUP = 128


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How groups are mixed.

    Args:
        mixup: alpha of mixup's Beta(alpha, alpha); 0 leaves it out.
        cutmix: the same of cutmix.
        probability: that a group is mixed.
        switch: probability of cutmix where both are possible.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch: float = 0.5

    def __post_init__(self) -> None:
        for field, alpha in (("mixup_alpha", self.mixup), ("cutmix_alpha", self.cutmix)):
            if alpha < 0:
                raise ValueError(f"augment.{field} is {alpha}; give a number above 0, or 0 for none")
        for field, share in (("mix_probability", self.probability), ("mix_switch", self.switch)):
            if not 0 <= share <= 1:
                raise ValueError(f"augment.{field} is {share}; give a probability, 0 to 1")
        if not self.mixup and not self.cutmix:
            raise ValueError("augment.mixup_alpha and augment.cutmix_alpha are both 0: nothing to mix by")


class Draw(NamedTuple):
    """What one group undergoes."""

    share: Float[Array, ""]  # lambda: of a row's own label; 1 where nothing is mixed
    cut: Bool[Array, ""]  # cutmix, and not mixup
    box: Box  # of cutmix


def mixing_group(batch: int) -> int:
    """Rows that share a lambda: 128, or in batches that are no multiple of it their largest even divisor below.

    Raises:
        ValueError: the batch is odd.
    """
    if batch % 2:
        raise ValueError(f"batch_size is {batch}; mixup and cutmix pair its rows: choose an even one")
    return next(rows for rows in range(min(GROUP, batch), 1, -1) if rows % 2 == 0 and batch % rows == 0)


def mix(
    images: Float[Array, "batch height width channels"],
    labels: Int[Array, " batch"],
    key: jax.Array,
    mixing: Mixing,
) -> tuple[
    Float[Array, "batch height width channels"],
    Int[Array, " batch"],
    Float[Array, " batch"],
]:
    """Mixed pictures, the labels of the partners, and the shares of the own labels (the partner's is the rest).

    Raises:
        ValueError: the batch is odd.
    """
    batch, height, width, _ = images.shape
    group = mixing_group(batch)
    drawn = draw_groups(key, batch // group, height, width, mixing)
    share, cut, box = jax.tree.map(lambda values: jnp.repeat(values, group), drawn)
    weight = share[:, None, None, None]
    partners = exchanged(images)
    mixed = weight * images + (1.0 - weight) * partners
    inside = jax.vmap(lambda *sides: Box(*sides).mask(height, width))(*box)[..., None]
    pasted = jnp.where(inside, partners, images)
    return jnp.where(cut[:, None, None, None], pasted, mixed), exchanged(labels), share


def exchanged(rows: Shaped[Array, "batch ..."]) -> Shaped[Array, "batch ..."]:
    """Every row in the place of its partner."""
    pairs = rows.reshape(rows.shape[0] // 2, 2, *rows.shape[1:])
    return pairs[:, ::-1].reshape(rows.shape)


def draw_groups(key: jax.Array, groups: int, height: int, width: int, mixing: Mixing) -> Draw:
    """One draw per group: arrays [groups]."""

    def of_group(key: jax.Array) -> Draw:
        whether, which, share, place = jax.random.split(key, 4)
        switch = mixing.switch if mixing.mixup and mixing.cutmix else float(mixing.cutmix > 0)
        cut = jax.random.bernoulli(which, switch)
        alpha = jnp.where(cut, mixing.cutmix, mixing.mixup)
        mixed = jax.random.bernoulli(whether, mixing.probability)
        drawn = jnp.where(mixed, jax.random.beta(share, alpha, alpha), 1.0)
        box = cut_box(place, drawn, height, width)
        area = (box.bottom - box.top) * (box.right - box.left)
        return Draw(jnp.where(cut, 1.0 - area / (height * width), drawn), cut, box)

    return jax.vmap(of_group)(row_keys(key, groups))


def cut_box(key: jax.Array, share: Float[Array, ""], height: int, width: int) -> Box:
    """A box of sqrt(1 - share) of each side around a uniform centre, cut off at the border of the picture."""
    ratio = jnp.sqrt(1.0 - share)
    half_height = jnp.floor(height * ratio).astype(jnp.int32) // 2
    half_width = jnp.floor(width * ratio).astype(jnp.int32) // 2
    down, across = jax.random.split(key)
    row, column = jax.random.randint(down, (), 0, height), jax.random.randint(across, (), 0, width)
    return Box(
        jnp.clip(row - half_height, 0, height),
        jnp.clip(column - half_width, 0, width),
        jnp.clip(row + half_height, 0, height),
        jnp.clip(column + half_width, 0, width),
    )
