"""What classifiers of one row of equal blocks share: their fields, the way through the blocks, depths of parameters.

Blocks are `block{j}`. Random numbers while training come from one collection, "dropout".
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from swin_jax.models.layers import TypedModule, drop_path_scales

Tokens = Float[Array, "batch tokens channels"]


class Isotropic(TypedModule):
    """ViT, MLP-Mixer and ResMLP. `EMBEDDINGS` are the names of the parameters before the first block."""

    EMBEDDINGS: ClassVar[tuple[str, ...]] = ("patch_embed",)

    depth: int = 12
    constrain: Callable[[Array], Array] | None = None

    @property
    def num_layers(self) -> int:
        """Number of values of `layer_of`: the embedding, every block, the head."""
        return self.depth + 2

    @nn.nowrap
    def layer_of(self, path: str) -> int:
        """The depth of a parameter, for layer-wise learning rates: the embeddings are 0, then every block is one."""
        first = path.split("/")[0]
        if first.startswith("block"):
            return int(first.removeprefix("block")) + 1
        return 0 if first in self.EMBEDDINGS else self.num_layers - 1

    @nn.nowrap
    def frozen(self, path: str) -> bool:
        """Nothing is held."""
        return False

    def _through_blocks(
        self, x: Tokens, train: bool, block: Callable[..., nn.Module], rates: Sequence[float]
    ) -> Tokens:
        """From inside a compact method. `block` makes one, `(tokens, train, scales of its two branches) -> tokens`;
        `rates` of drop path are one for each."""
        x = self._constrained(x)
        drops = train and max(rates) > 0.0
        scales = drop_path_scales(self.make_rng("dropout"), rates, x.shape[0]) if drops else None
        for index in range(self.depth):
            of_block = None if scales is None else scales[index]
            x = self._constrained(block(name=f"block{index}", **self.types)(x, train, of_block))
        return x

    def _constrained(self, x: Tokens) -> Tokens:
        return x if self.constrain is None else self.constrain(x)
