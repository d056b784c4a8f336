"""Your own pictures with label maps: a directory or zip.

    python -m swin_jax.train --config=experiments/own_segmentation.py:upernet_swin_tiny \\
        --config.data.root=/data/streets --workdir=runs/streets

Three layouts are known, with any names of the splits:

    images/train/**/x.jpg            annotations/train/**/x.png  (or labels/, masks/)          ADE20K
    train/x.png                      train_labels/x_L.png  (or x.png, or trainannot/x.png)     CamVid
    leftImg8bit/train/*/x_leftImg8bit.png   gtFine/train/*/x_gtFine_labelTrainIds.png          Cityscapes

and a list of classes beside them, `classes.txt`: one class a line in the order of the label values from 0, with its
colour where label files are RGB ("road, 128, 64, 128"; CamVid's own `class_dict.csv` and `label_colors.txt` do, too).
A class called "ignore" or "void" is none; nor is the value 255. Cityscapes needs no list.

| variant           | for                                                          | where         |
|-------------------|--------------------------------------------------------------|---------------|
| upernet_swin_tiny | photographs; UperNet on Swin-T, crops of 512                 | a GPU or TPU  |
| micro             | small pictures; a UperNet of 0.7 M parameters, crops of 128  | two CPU cores |

Begin with weights of ImageNet (`--config.init_from=swin_tiny_patch4_window7_224.pth`) unless the data are many.
"""

from swin_jax.config import Config, base_config
from swin_jax.setups.recipes import use_micro_upernet, use_upernet_recipe
from swin_jax.training.preflight import nearest

VARIANTS = ("upernet_swin_tiny", "micro")


def get_config(variant: str = "upernet_swin_tiny") -> Config:
    if variant not in VARIANTS:
        raise ValueError(f"own_segmentation.py has no variant {variant!r}; {nearest(variant, VARIANTS)}")
    config = base_config()
    use_upernet_recipe(config, "upernet_swin_tiny")
    config.data.source = "label_pairs"
    config.data.eval_split = "val"
    config.total = "40000 steps"
    config.evaluate_every = config.checkpoint_every = "2000 steps"
    config.loss.mean = "valid"
    if variant == "micro":
        use_micro_upernet(config)
        config.total = "40 epochs"
        config.evaluate_every = config.checkpoint_every = "5 epochs"
        config.data.size = (128, 128)
        config.data.scale = (512, 128)
    return config
