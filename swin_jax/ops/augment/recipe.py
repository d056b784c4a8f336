"""The whole of it: what a batch of uint8 pictures undergoes on its way into the model."""

import dataclasses

import jax
from jaxtyping import Array, Float, UInt8

from swin_jax.ops.augment.basic import flip_rows, normalise
from swin_jax.ops.augment.erasing import Erasing, random_erasing
from swin_jax.ops.augment.jitter import color_jitter, three_augment
from swin_jax.ops.augment.mixing import Mixing
from swin_jax.ops.augment.randaugment import Policy, rand_augment


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training pictures; by default they are flipped and no more.

    Args:
        flip: probability of mirroring left to right.
        policy: of RandAugment, or None for none.
        three_augment: one of grey, solarize and blur for each picture.
        color_jitter: strength of the change of brightness, contrast and saturation; 0 for none.
        erasing: after normalisation, or None for none.
        mixing: mixup and cutmix, or None for none.

    Raises:
        ValueError: values out of range, or two that the published code does not combine.
    """

    flip: float = 0.5
    policy: Policy | None = None
    three_augment: bool = False
    color_jitter: float = 0.0
    erasing: Erasing | None = None
    mixing: Mixing | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"augment.flip is {self.flip}; give a probability, 0 to 1")
        if self.color_jitter < 0:
            raise ValueError(f"augment.color_jitter is {self.color_jitter}; give 0 or more")
        if self.policy and (self.three_augment or self.color_jitter):
            field = "three_augment" if self.three_augment else "color_jitter"
            raise ValueError(f"augment.{field} and augment.rand_augment exclude each other: switch one off")

    def pictures(
        self,
        images: UInt8[Array, "batch height width 3"],
        key: jax.Array,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> Float[Array, "batch height width 3"]:
        """Everything that happens to one picture alone, `mixing` excluded: normalised f32."""
        # One key for each, used or not: to switch one off leaves the draws of the others as they were.
        flip_key, policy_key, three_key, jitter_key, erase_key = jax.random.split(key, 5)
        if self.flip:
            images = flip_rows(images, flip_key, probability=self.flip)
        if self.policy:
            images = rand_augment(images, policy_key, self.policy)
        if self.three_augment:
            images = three_augment(images, three_key)
        if self.color_jitter:
            images = color_jitter(images, jitter_key, self.color_jitter)
        normal = normalise(images, mean, std)
        return random_erasing(normal, erase_key, self.erasing) if self.erasing else normal


FLIP_ONLY = Augmentation()
