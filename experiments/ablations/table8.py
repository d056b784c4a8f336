"""Table 8 of Liu et al. (2021): larger pictures. Rows above 224 are fine-tuned from the same model's 224.

    python -m swin_jax.ablate --table=8 --scale=paper --row=tiny_224,tiny_384 --workdir=runs/table8

Windows stay at 7 tokens. At scale "micro" a picture has 2/7 of the pixels a side and the models are three micro Swins.
"""

from collections.abc import Mapping
from typing import Any

from experiments.ablations.bases import micro_classification, paper_classification
from swin_jax.config import Config
from swin_jax.studies.table import Row, Table

TOP1 = {
    "tiny": (81.3, 81.6, 82.1, 82.2),
    "small": (83.0, 83.4, 83.7, 83.9),
    "base": (83.3, 83.7, 84.0, 84.5),
}
SIZES = (224, 256, 320, 384)
DROP_PATH = {"tiny": 0.2, "small": 0.3, "base": 0.5}
MICRO = {"tiny": (32, (2, 2)), "small": (32, (2, 4)), "base": (48, (2, 4))}
FINE_TUNE = {
    "total": "30 epochs",
    "optimizer.weight_decay": 1e-8,
    "schedule.peak": 2e-5,
    "schedule.end": 2e-7,
    "schedule.warmup": "5 epochs",
    "schedule.warmup_start": 2e-8,
}
"""As the released fine-tunes have it, for 512 pictures an update."""


def _row(model: str, size: int, top1: float) -> Row:
    side = size * 2 // 7
    width, depths = MICRO[model]
    changes: dict[str, Any] = {
        "model.name": f"swin_{model}_patch4_window7_224",
        "model.drop_path_rate": DROP_PATH[model],
        "data.size": (size, size),
        "data.resize": (size, size) if size == 384 else size * 256 // 224,
    }
    micro: dict[str, Any] = {
        "model.name": "swin",
        "model.drop_path_rate": 0.0,
        "model.embed_dim": width,
        "model.depths": depths,
        "data.size": (side, side),
        "data.resize": (side, side),
    }
    if size == SIZES[0]:
        return Row(f"Swin-{model[0].upper()}, {size}", changes, {"top1": top1}, {"micro": micro})
    micro |= {
        "total": "300 steps",
        "schedule.peak": 2e-4,
        "schedule.end": 2e-6,
        "schedule.warmup": "30 steps",
    }
    paper: Mapping[str, Any] = FINE_TUNE
    return Row(
        f"Swin-{model[0].upper()}, {size}",
        changes,
        {"top1": top1},
        {"paper": paper, "micro": micro},
        begins_with=f"{model}_{SIZES[0]}",
    )


TABLE = Table(
    title="Table 8: size of the picture",
    base_row="tiny_224",
    rows={
        f"{model}_{size}": _row(model, size, top1)
        for model, figures in TOP1.items()
        for size, top1 in zip(SIZES, figures, strict=True)
    },
    bases={
        ("paper", "classification"): paper_classification,
        ("micro", "classification"): micro_classification,
    },
)


def get_config(variant: str = "tiny_224") -> Config:
    return TABLE.config(variant)
