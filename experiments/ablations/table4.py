"""Table 4 of Liu et al. (2021): shifted windows, and how attention knows where things are.

python -m swin_jax.ablate --table=4 --scale=micro --workdir=runs/table4
"""

from experiments.ablations.bases import CLASSIFICATION, DENSE
from swin_jax.config import Config
from swin_jax.studies.table import Row, Table

ABSOLUTE = {"model.absolute_position_embedding": True}
NO_RELATIVE = {"model.relative_position": False}


def _published(top1: float, top5: float, box: float, mask: float, miou: float) -> dict[str, float]:
    return {"top1": top1, "top5": top5, "box_ap": box, "mask_ap": mask, "miou": miou}


TABLE = Table(
    title="Table 4: shifted windows and position",
    base_row="shifted",
    rows={
        "no_shift": Row("no shifting", {"model.shift": "none"}, _published(80.2, 95.1, 47.7, 41.5, 43.3)),
        "shifted": Row("shifted windows (relative position)", {}, _published(81.3, 95.6, 50.5, 43.7, 46.1)),
        "no_position": Row("no position", NO_RELATIVE, _published(80.1, 94.9, 49.2, 42.6, 43.8)),
        "absolute": Row(
            "absolute position", ABSOLUTE | NO_RELATIVE, _published(80.5, 95.2, 49.0, 42.4, 43.2)
        ),
        "absolute_relative": Row(
            "absolute and relative position", ABSOLUTE, _published(81.3, 95.6, 50.2, 43.4, 44.0)
        ),
        "no_appearance": Row(
            "relative position without appearance",
            {"model.appearance": False},
            _published(79.3, 94.7, 48.2, 41.9, 44.1),
        ),
    },
    bases=CLASSIFICATION | DENSE,
)


def get_config(variant: str = "shifted") -> Config:
    return TABLE.config(variant)
