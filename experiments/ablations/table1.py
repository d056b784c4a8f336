"""Table 1a of Liu et al. (2021): classifiers trained on ImageNet-1K, all by the recipe of Swin.

    python -m swin_jax.ablate --table=1 --scale=paper --row=swin_t,deit_s --workdir=runs/table1

RegNetY and EfficientNet are published figures alone. The published rows of DeiT and ViT come from their own papers'
recipes; trained here, they get Swin's.
"""

from typing import Any

from experiments.ablations.bases import paper_classification
from swin_jax.config import Config
from swin_jax.studies.table import Row, Table

FINE_TUNE = {
    "total": "30 epochs",
    "optimizer.weight_decay": 1e-8,
    "schedule.peak": 2e-5,
    "schedule.end": 2e-7,
}
FINE_TUNE |= {"schedule.warmup": "5 epochs", "schedule.warmup_start": 2e-8}
AT_384 = {"data.size": (384, 384), "data.resize": (384, 384)}


def _model(title: str, name: str, drop_path: float, top1: float, **more: Any) -> Row:
    changes = {"model.name": name, "model.drop_path_rate": drop_path, **more.pop("changes", {})}
    return Row(title, changes, {"top1": top1}, **more)


def _published(title: str, top1: float) -> Row:
    return Row(title, None, {"top1": top1})


TABLE = Table(
    title="Table 1a: ImageNet-1K",
    base_row="swin_t",
    rows={
        "regnety_4g": _published("RegNetY-4G, 224", 80.0),
        "regnety_8g": _published("RegNetY-8G, 224", 81.7),
        "regnety_16g": _published("RegNetY-16G, 224", 82.9),
        "efficientnet_b3": _published("EfficientNet-B3, 300", 81.6),
        "efficientnet_b4": _published("EfficientNet-B4, 380", 82.9),
        "efficientnet_b5": _published("EfficientNet-B5, 456", 83.6),
        "efficientnet_b6": _published("EfficientNet-B6, 528", 84.0),
        "efficientnet_b7": _published("EfficientNet-B7, 600", 84.3),
        "vit_b_384": _model("ViT-B/16, 384", "vit_base_patch16_384", 0.1, 77.9),
        "vit_l_384": _model("ViT-L/16, 384", "vit_large_patch16_384", 0.3, 76.5),
        "deit_s": _model("DeiT-S, 224", "deit_small_patch16_224", 0.1, 79.8),
        "deit_b": _model("DeiT-B, 224", "deit_base_patch16_224", 0.1, 81.8),
        "deit_b_384": _model(
            "DeiT-B, 384", "deit_base_patch16_384", 0.1, 83.1, changes=FINE_TUNE, begins_with="deit_b"
        ),
        "swin_t": _model("Swin-T, 224", "swin_tiny_patch4_window7_224", 0.2, 81.3),
        "swin_s": _model("Swin-S, 224", "swin_small_patch4_window7_224", 0.3, 83.0),
        "swin_b": _model("Swin-B, 224", "swin_base_patch4_window7_224", 0.5, 83.5),
        "swin_b_384": _model(
            "Swin-B, 384",
            "swin_base_patch4_window12_384",
            0.5,
            84.5,
            changes=FINE_TUNE | AT_384,
            begins_with="swin_b",
        ),
    },
    bases={("paper", "classification"): paper_classification},
)


def get_config(variant: str = "swin_t") -> Config:
    return TABLE.config(variant)
