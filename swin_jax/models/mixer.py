"""MLP-Mixer (Tolstikhin et al., 2021, arXiv 2105.01601): a baseline of the paper's comparison of MLPs.

Parameter paths beside those of `models/all_mlp.py`, for N patches:

    block{j}/norm1/{scale, bias}                       block{j}/norm2/{scale, bias}
    block{j}/token_mlp/fc1/{kernel [N,C/2], bias}      block{j}/token_mlp/fc2/{kernel [C/2,N], bias}
    block{j}/channel_mlp/fc1/{kernel [C,4C], bias}     block{j}/channel_mlp/fc2/{kernel [4C,C], bias}
"""

import functools

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from swin_jax.models import checks
from swin_jax.models.all_mlp import AllMlp, Parts
from swin_jax.models.isotropic import Tokens
from swin_jax.models.layers import Dense, LayerNorm, Mlp, TypedModule, scale_examples

# As in the code that the paper lists (appendix E): Flax's own epsilon and initialisation, a head of zeros.
MixerNorm = functools.partial(LayerNorm, epsilon=1e-6)
MixerDense = functools.partial(Dense, kernel_init=nn.initializers.lecun_normal())


class MixerBlock(TypedModule):
    """Two residual branches, each after a norm: an MLP across tokens, an MLP across channels (section 2)."""

    token_hidden: int
    hidden: int

    @nn.compact
    def __call__(
        self, x: Tokens, train: bool, branch_scales: Float[Array, "branches=2 batch"] | None = None
    ) -> Tokens:
        """`branch_scales` are one block's of `drop_path_scales`; None drops no branch."""
        of_tokens, of_channels = (None, None) if branch_scales is None else branch_scales
        across_tokens = Mlp(self.token_hidden, dense=MixerDense, name="token_mlp", **self.types)
        branch = MixerNorm(name="norm1", **self.types)(x).swapaxes(1, 2)
        x = x + scale_examples(across_tokens(branch, train).swapaxes(1, 2), of_tokens)
        across_channels = Mlp(self.hidden, dense=MixerDense, name="channel_mlp", **self.types)
        branch = across_channels(MixerNorm(name="norm2", **self.types)(x), train)
        return x + scale_examples(branch, of_channels)


class MlpMixer(AllMlp):
    """MLP-Mixer: normalised pictures `[B, H, W, 3]` of one size to logits.

    Attributes:
      token_mlp_ratio: hidden values of the MLP across tokens, per channel of a token.
      others: see `AllMlp`. Stochastic depth grows linearly from 0 at the first block.
    """

    token_mlp_ratio: float | int = 0.5

    def __post_init__(self) -> None:
        checks.check_ratio("token_mlp_ratio", self.token_mlp_ratio)
        super().__post_init__()

    @property
    def token_hidden(self) -> int:
        """Hidden values of the MLP across tokens."""
        return int(self.embed_dim * self.token_mlp_ratio)

    @nn.nowrap
    def parts(self) -> Parts:
        return Parts(
            block=functools.partial(MixerBlock, self.token_hidden, self.hidden),
            norm=MixerNorm,
            rates=[float(rate) for rate in np.linspace(0.0, self.drop_path_rate, self.depth)],
            head_init=nn.initializers.zeros,
        )
