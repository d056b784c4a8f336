"""What each augmentation does: CIFAR-10 as an image folder, the same short budget for all. No table of the paper.

    python -m swin_jax.ablate --table=augmentation --scale=small --override=data.root=cifar10.zip \\
        --workdir=runs/augmentation

The folder or zip has train/<class>/* and test/<class>/*.
"""

from experiments.ablations.bases import small_classification
from swin_jax.config import Config, base_config, use_paper_augmentation
from swin_jax.studies.table import Row, Table

TITLES = {
    "flip": "flip alone",
    "rand_augment": "RandAugment",
    "erasing": "random erasing",
    "mixup": "mixup",
    "cutmix": "cutmix",
    "all": "the full recipe",
}
FIELDS = {
    "flip": (),
    "rand_augment": ("rand_augment",),
    "erasing": ("erase_probability",),
    "mixup": ("mixup_alpha",),
    "cutmix": ("cutmix_alpha",),
    "all": ("rand_augment", "erase_probability", "mixup_alpha", "cutmix_alpha"),
}


def _row(name: str) -> Row:
    recipe = base_config()
    use_paper_augmentation(recipe)
    title = TITLES[name] if name == "flip" else f"with {TITLES[name]}"
    return Row(title, {f"augment.{field}": recipe.augment[field] for field in FIELDS[name]})


TABLE = Table(
    title="Augmentations",
    base_row="flip",
    rows={name: _row(name) for name in TITLES},
    bases={("small", "classification"): small_classification},
)


def get_config(variant: str = "all,small") -> Config:
    return TABLE.config(variant)
