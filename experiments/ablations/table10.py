"""Table 10 of Liu et al. (2021): networks of MLPs alone, and what shifted windows do for them.

    python -m swin_jax.ablate --table=10 --scale=paper --row=swin_mixer_d24 --workdir=runs/table10

Swin-Mixer is Swin-MLP of the released code; its "B/D24" has 32 channels a head. At the small scales the rows have the
same heads as the base, twice and four times as many; the other models are published figures there.
"""

from typing import Any

from experiments.ablations.bases import CLASSIFICATION
from swin_jax.config import Config
from swin_jax.studies.table import Row, Table

MLP = {"model.mixer": "mlp", "model.shift": "padding"}


def _named(name: str, size: int, drop_path: float) -> dict[str, Any]:
    return {
        "model.name": name,
        "model.drop_path_rate": drop_path,
        "data.size": (size, size),
        "data.resize": size * 256 // 224,
    }


def _at(heads: tuple[int, ...], shift: str = "padding") -> dict[str, dict[str, Any]]:
    """The micro Swins of the small scales, whose name and sizes the base has."""

    def of(size: int) -> dict[str, Any]:
        return {
            "model.name": "swin",
            "model.drop_path_rate": 0.0,
            "model.num_heads": heads,
            "data.size": (size, size),
            "data.resize": (size, size),
            **(MLP | {"model.shift": shift} if shift else {}),
        }

    return {"small": of(32), "micro": of(64)}


ROWS = {
    "mixer_b16": Row(
        "Mixer-B/16", _named("mixer_base_patch16_224", 224, 0.1), {"top1": 76.4}, scales=("paper",)
    ),
    "resmlp_s24": Row(
        "ResMLP-S24", _named("resmlp_small_24_224", 224, 0.05), {"top1": 79.4}, scales=("paper",)
    ),
    "resmlp_b24": Row(
        "ResMLP-B24", _named("resmlp_base_24_224", 224, 0.2), {"top1": 81.0}, scales=("paper",)
    ),
    "swin_d24": Row(
        "Swin-T/D24 (transformer)",
        _named("swin_tiny_c24_patch4_window8_256", 256, 0.2),
        {"top1": 81.6},
        _at((2, 4), shift=""),
    ),
    "swin_mixer_d24": Row(
        "Swin-Mixer-T/D24",
        _named("swin_mlp_tiny_c24_patch4_window8_256", 256, 0.2),
        {"top1": 79.4},
        _at((2, 4)),
    ),
    "swin_mixer_d12": Row(
        "Swin-Mixer-T/D12",
        _named("swin_mlp_tiny_c12_patch4_window8_256", 256, 0.2),
        {"top1": 79.6},
        _at((4, 8)),
    ),
    "swin_mixer_d6": Row(
        "Swin-Mixer-T/D6",
        _named("swin_mlp_tiny_c6_patch4_window8_256", 256, 0.2),
        {"top1": 79.7},
        _at((8, 16)),
    ),
    "swin_mixer_b_no_shift": Row(
        "Swin-Mixer-B/D24, no shift",
        _named("swin_mlp_base_patch4_window7_224", 224, 0.5) | {"model.shift": "none"},
        {"top1": 80.3},
        _at((2, 4), shift="none"),
    ),
    "swin_mixer_b": Row(
        "Swin-Mixer-B/D24", _named("swin_mlp_base_patch4_window7_224", 224, 0.5), {"top1": 81.3}, _at((2, 4))
    ),
}
TABLE = Table(title="Table 10: networks of MLPs", base_row="swin_mixer_d24", rows=ROWS, bases=CLASSIFICATION)


def get_config(variant: str = "swin_mixer_d24") -> Config:
    return TABLE.config(variant)
