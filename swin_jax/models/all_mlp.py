"""What MLP-Mixer and ResMLP share: patches, blocks that mix tokens and then channels, a norm, their mean, a head.

    patch_embed/proj/{kernel [p,p,3,C], bias}     block{j}/...     norm/{scale, bias}, head/{kernel, bias}

Whatever mixes tokens has a weight for each pair of them, so that a model takes pictures of one size. Random numbers
while training come from one collection, "dropout".
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from swin_jax.models import checks
from swin_jax.models.isotropic import Isotropic
from swin_jax.models.layers import Dense, PatchEmbed


class Parts(NamedTuple):
    """Of an all-MLP model.

    Attributes:
      block: makes a block, `(tokens, train, scales of its two branches) -> tokens`.
      norm: makes the last norm.
      rates: of drop path, for each block.
      head_init: of the head's kernel.
    """

    block: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    rates: Sequence[float]
    head_init: nn.initializers.Initializer


class AllMlp(Isotropic):
    """The fields of such a classifier, and its way from pictures to logits around the blocks.

    Attributes:
      embed_dim: channels.
      depth: blocks.
      patch_size: side of a patch in pixels.
      mlp_ratio: hidden channels of the MLP of each token per channel.
      num_classes: outputs of the head; 0 leaves the mean of the tokens `[B, C]`.
      drop_path_rate: stochastic depth: the largest rate of a block.
      image_size: (height, width) in pixels of the pictures that the weights are made for; no others are taken.
      constrain: applied to the tokens after the embedding and every block: the place for a sharding constraint.
      dtype: type of activations and matrix products; norms and the head are float32.
      param_dtype: type parameters are kept in.

    Raises:
      ValueError: when it is made, if a field makes no sense.
    """

    embed_dim: int = 384
    patch_size: int = 16
    mlp_ratio: float | int = 4.0
    num_classes: int = 1000
    drop_path_rate: float | int = 0.0
    image_size: Sequence[int] = (224, 224)

    def __post_init__(self) -> None:
        if isinstance(self.image_size, list):
            self.image_size = tuple(self.image_size)
        checks.check_all_mlp(self)
        super().__post_init__()

    @property
    def hidden(self) -> int:
        """Hidden channels of the MLP of each token."""
        return int(self.embed_dim * self.mlp_ratio)

    @nn.nowrap
    def parts(self) -> Parts:
        """What tells one such model from another."""
        raise NotImplementedError(f"{type(self).__name__} has no parts of its own")

    @nn.compact
    def __call__(self, images: Array | np.ndarray, train: bool = False) -> Float[Array, "batch outputs"]:
        """Logits `[B, num_classes]` float32.

        Args:
          images: normalised pictures `[B, H, W, 3]`, RGB, of any float type and of `image_size`.
          train: switches drop path on; with a rate above 0 it draws from the rng "dropout".

        Raises:
          ValueError: if `images` are not float pictures with 3 channels, or of another size.
        """
        block, norm, rates, head_init = self.parts()
        checks.check_images(images)
        checks.check_picture_size(type(self).__name__, images.shape[1:3], self.image_size)
        patches = PatchEmbed(self.embed_dim, self.patch_size, norm=False, name="patch_embed", **self.types)(
            jnp.asarray(images)
        )
        batch, rows, columns, channels = patches.shape
        tokens = patches.reshape(batch, rows * columns, channels)
        x = self._through_blocks(tokens, train, block, rates)
        # Few numbers from here on: float32 costs nothing.
        in_float32 = {**self.types, "dtype": jnp.float32}
        pooled = norm(name="norm", **in_float32)(x).mean(axis=1)
        if not self.num_classes:
            return pooled
        return Dense(self.num_classes, kernel_init=head_init, name="head", **in_float32)(pooled)
