"""ResMLP (Touvron et al., 2021, arXiv 2105.03404): a baseline of the paper's comparison of MLPs.

Parameter paths beside those of `models/all_mlp.py`, for N patches; each affine map has a scale and a bias per channel:

    block{j}/affine1/{scale, bias}                 block{j}/affine2/{scale, bias}
    block{j}/tokens/{kernel [N,N], bias}           block{j}/layer_scale1 [C], block{j}/layer_scale2 [C]
    block{j}/mlp/fc1/{kernel [C,4C], bias}         block{j}/mlp/fc2/{kernel [4C,C], bias}
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from swin_jax.models import checks
from swin_jax.models.all_mlp import AllMlp, Parts
from swin_jax.models.isotropic import Tokens
from swin_jax.models.layers import Dense, Mlp, TypedModule, scale_examples, small_normal


class Affine(TypedModule):
    """Multiplies every channel and adds to it, in float32: what stands in place of a norm (section 2, eq. 1)."""

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        shape = (x.shape[-1],)
        scale = jnp.asarray(self.param("scale", nn.initializers.ones, shape, self.param_dtype), jnp.float32)
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, shape, self.param_dtype), jnp.float32)
        return (x * scale[None, None] + bias[None, None]).astype(self.dtype)


class ResMlpBlock(TypedModule):
    """Two residual branches, each behind an affine map: a linear map across tokens, an MLP across channels.

    Both are scaled per channel before they are added (section 2, eq. 2 and 3).
    """

    hidden: int
    layer_scale: float

    @nn.compact
    def __call__(
        self, x: Tokens, train: bool, branch_scales: Float[Array, "branches=2 batch"] | None = None
    ) -> Tokens:
        """`branch_scales` are one block's of `drop_path_scales`; None drops no branch."""
        of_tokens, of_channels = (None, None) if branch_scales is None else branch_scales
        branch = Affine(name="affine1", **self.types)(x).swapaxes(1, 2)
        branch = Dense(x.shape[1], name="tokens", **self.types)(branch).swapaxes(1, 2)
        x = x + scale_examples(self._scaled("layer_scale1", branch), of_tokens)
        branch = Affine(name="affine2", **self.types)(x)
        branch = Mlp(self.hidden, name="mlp", **self.types)(branch, train)
        return x + scale_examples(self._scaled("layer_scale2", branch), of_channels)

    def _scaled(self, name: str, branch: Tokens) -> Tokens:
        init = nn.initializers.constant(self.layer_scale)
        scale = jnp.asarray(self.param(name, init, branch.shape[-1:], self.param_dtype), jnp.float32)
        return (branch * scale[None, None]).astype(branch.dtype)


class ResMlp(AllMlp):
    """ResMLP: normalised pictures `[B, H, W, 3]` of one size to logits.

    Attributes:
      layer_scale: what a branch is multiplied by at first: 1e-5 in 24 blocks, less in deeper or wider models.
      others: see `AllMlp`. Stochastic depth has one rate for all blocks, as in the released code.
    """

    layer_scale: float = 1e-5

    def __post_init__(self) -> None:
        checks.check_ratio("layer_scale", self.layer_scale)
        super().__post_init__()

    @nn.nowrap
    def parts(self) -> Parts:
        return Parts(
            block=functools.partial(ResMlpBlock, self.hidden, self.layer_scale),
            norm=Affine,
            rates=[float(self.drop_path_rate)] * self.depth,
            head_init=small_normal,
        )
