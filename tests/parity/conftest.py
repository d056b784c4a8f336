"""Before any test imports transformers or timm: torchvision's operators are declared, if they are missing."""

from swin_jax.weights.peers import declare_torchvision_operators

declare_torchvision_operators()
