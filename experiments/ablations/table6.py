"""Table 6 of Liu et al. (2021): what each way of attention is worth.

    python -m swin_jax.ablate --table=6 --scale=small --override=data.root=cifar10.zip --workdir=runs/table6

The paper says of Performer no more than its name; the number of features and that they are fixed are our choice.
"""

from experiments.ablations.bases import CLASSIFICATION, DENSE
from swin_jax.config import Config
from swin_jax.studies.table import Row, Table

ODD = "windows of 4 tokens have no middle: it has windows of 5 at the small scales"

TABLE = Table(
    title="Table 6: ways of attention",
    base_row="shifted",
    rows={
        "sliding": Row(
            "sliding window",
            {"model.mixer": "sliding"},
            {"top1": 81.4, "top5": 95.6, "box_ap": 50.2, "mask_ap": 43.5, "miou": 45.8},
            at={"small": {"model.window_size": 5}, "micro": {"model.window_size": 5}},
            note=ODD,
        ),
        "performer": Row("Performer", {"model.mixer": "performer"}, {"top1": 79.0, "top5": 94.2}),
        "shifted": Row(
            "shifted window", {}, {"top1": 81.3, "top5": 95.6, "box_ap": 50.5, "mask_ap": 43.7, "miou": 46.1}
        ),
    },
    bases=CLASSIFICATION | DENSE,
)


def get_config(variant: str = "shifted") -> Config:
    return TABLE.config(variant)
