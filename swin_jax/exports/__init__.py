"""What leaves the house: frozen programs, plain arrays, and the card that says what they are.

from swin_jax import exports
program = exports.load("exported")          # the directory that swin_jax.export wrote, or its .stablehlo file
logits = program(images)                    # on whatever device jax has; `program.description` says what goes in
"""

from swin_jax.exports.stablehlo import Program, load

__all__ = ["Program", "load"]
