"""Table 5 of Liu et al. (2021): the time of each way of attention.

    python -m swin_jax.ablate --table=5 --scale=small --workdir=runs/table5

Scale "paper" times Swin-T, S and B and compiles for a quarter of an hour, "gpu" times Swin-T at the same batch in
minutes, "small" at a CPU's batch.

Trains nothing: times the attention layer of each stage and the whole model on the device at hand. The paper's sliding
window is once written in plain PyTorch ("naive") and once a CUDA kernel; ours is once unfolded and once by tiles.
"""

from swin_jax.studies.attention_time import Method, Size

METHODS = {
    "sliding_naive": Method(
        "sliding window, unfolded", {"mixer": "sliding_naive"}, (122.5, 38.3, 12.1, 7.6), (183, 109, 77)
    ),
    "sliding": Method(
        "sliding window, by tiles", {"mixer": "sliding"}, (7.6, 4.7, 2.7, 1.8), (488, 283, 187)
    ),
    "performer": Method("Performer", {"mixer": "performer"}, (4.8, 2.8, 1.8, 1.5), (638, 370, 241)),
    "no_shift": Method("window, no shift", {"shift": "none"}, (2.8, 1.7, 1.2, 0.9), (770, 444, 280)),
    "padding": Method("shifted window, padding", {"shift": "padding"}, (3.3, 2.3, 1.9, 2.2), (670, 371, 236)),
    "cyclic": Method("shifted window, cyclic", {}, (3.0, 1.9, 1.3, 1.0), (755, 437, 278)),
}
BASE = "cyclic"
ALL = ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", "swin_base_patch4_window7_224")
MICRO = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window_size": 3, "num_classes": 3}
SIZES = {
    "paper": Size(ALL, {}, side=224, batch=64, repeats=10, seconds=1.0),
    "gpu": Size(ALL[:1], {}, side=224, batch=64, repeats=7, seconds=0.2),
    "small": Size(ALL[:1], {}, side=224, batch=4, repeats=7, seconds=0.5),
    "micro": Size(("swin",), MICRO, side=48, batch=2, repeats=2, seconds=0.01),
}
