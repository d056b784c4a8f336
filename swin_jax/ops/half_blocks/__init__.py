"""Half a Swin block as one TPU kernel: a norm, what follows it, and the residual sum, forward and backward.

The map is read once and written once; everything between stays on the chip and is computed again in the backward pass.
"""
