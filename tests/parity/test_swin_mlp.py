"""Swin-MLP against its definition (the paper's appendix A3.3), read once more in PyTorch: a grouped convolution."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from swin_jax.models.swin import SwinTransformer

WINDOW = 4


def mixed(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, heads: int, shift: int) -> torch.Tensor:
    """One spatial mix of `[batch, height, width, channels]`; weight [heads, out, in], bias [heads, out]."""
    batch, height, width, channels = x.shape
    above = WINDOW - shift if shift else 0
    x = nn.functional.pad(x, (0, 0, above, shift, above, shift))
    down, across = x.shape[1] // WINDOW, x.shape[2] // WINDOW
    blocks = x.view(batch, down, WINDOW, across, WINDOW, channels).permute(0, 1, 3, 2, 4, 5)
    tokens = blocks.reshape(-1, WINDOW * WINDOW, heads, channels // heads)
    groups = tokens.transpose(1, 2).reshape(-1, heads * WINDOW * WINDOW, channels // heads)
    conv = nn.Conv1d(heads * WINDOW**2, heads * WINDOW**2, 1, groups=heads)
    conv.weight.data = weight.reshape(-1, WINDOW * WINDOW, 1)
    conv.bias.data = bias.reshape(-1)
    tokens = conv(groups).reshape(-1, heads, WINDOW * WINDOW, channels // heads).transpose(1, 2)
    blocks = tokens.reshape(batch, down, across, WINDOW, WINDOW, channels).permute(0, 1, 3, 2, 4, 5)
    x = blocks.reshape(batch, down * WINDOW, across * WINDOW, channels)
    return x[:, above : above + height, above : above + width]


def test_swin_mlp_equals_its_definition():
    model = SwinTransformer(
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=WINDOW,
        num_classes=5,
        mixer="mlp",
        shift="padding",
    )
    images = np.random.default_rng(0).standard_normal((2, 64, 32, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    variables = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), variables
    )
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    p = {name: torch.from_numpy(np.array(value)) for name, value in flat.items()}

    def norm(x: torch.Tensor, at: str) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], p[f"{at}/scale"], p[f"{at}/bias"], 1e-5)

    def dense(x: torch.Tensor, at: str) -> torch.Tensor:
        return x @ p[f"{at}/kernel"] + p.get(f"{at}/bias", torch.zeros(()))

    picture = torch.from_numpy(images)
    kernel = p["patch_embed/proj/kernel"].permute(3, 2, 0, 1)
    x = nn.functional.conv2d(picture.permute(0, 3, 1, 2), kernel, p["patch_embed/proj/bias"], stride=4)
    x = norm(x.permute(0, 2, 3, 1), "patch_embed/norm")
    for stage, heads in enumerate((2, 4)):
        for block in range(2):
            at = f"stage{stage}/block{block}"
            mixing = p[f"{at}/attn/mixing/kernel"], p[f"{at}/attn/mixing/bias"]
            small = min(x.shape[1:3]) <= WINDOW
            x = x + mixed(norm(x, f"{at}/norm1"), *mixing, heads, 2 if block and not small else 0)
            hidden = nn.functional.gelu(dense(norm(x, f"{at}/norm2"), f"{at}/mlp/fc1"))
            x = x + dense(hidden, f"{at}/mlp/fc2")
        if stage == 0:
            merged = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
            x = dense(norm(merged, "stage0/downsample/norm"), "stage0/downsample/reduction")
    expected = dense(norm(x, "norm").mean(dim=(1, 2)), "head").detach().numpy()
    found = np.asarray(model.apply(variables, jnp.asarray(images)))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
