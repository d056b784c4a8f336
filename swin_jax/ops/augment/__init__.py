"""What happens to pictures on the device, inside the jitted step.

The published recipe in its order: flip, RandAugment (uint8), normalise, random erasing, mixup or cutmix. Every
function draws from a key of the step; a row of the global batch gets its own stream from its place in the batch, a
group of rows from its number, so that neither the number of devices nor that of hosts changes a draw.
"""

from swin_jax.ops.augment.basic import flip_rows, normalise, row_keys
from swin_jax.ops.augment.erasing import Erasing, random_erasing
from swin_jax.ops.augment.jitter import color_jitter, three_augment
from swin_jax.ops.augment.mixing import Mixing, mix, mixing_group
from swin_jax.ops.augment.randaugment import Policy, parse_policy, rand_augment
from swin_jax.ops.augment.recipe import FLIP_ONLY, Augmentation

__all__ = [
    "FLIP_ONLY",
    "Augmentation",
    "Erasing",
    "Mixing",
    "Policy",
    "color_jitter",
    "flip_rows",
    "mix",
    "mixing_group",
    "normalise",
    "parse_policy",
    "rand_augment",
    "random_erasing",
    "row_keys",
    "three_augment",
]
