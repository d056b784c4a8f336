"""UperNet's heads in OpenMMLab, the published code and transformers."""

from swin_jax.weights.family import Family
from swin_jax.weights.layouts import Layout, rows

POOL_SCALES = (1, 2, 3, 6)


def _layout(name: str, norm: str, classifier: str) -> Layout:
    """The rows of the heads; the code bases differ in what they call a norm and the classifier."""
    blocks = (
        *(
            (f"decode_head/pool{scale}", f"decode_head.psp_modules.{i}.1")
            for i, scale in enumerate(POOL_SCALES)
        ),
        ("decode_head/bottleneck", "decode_head.bottleneck"),
        ("decode_head/lateral{i}", "decode_head.lateral_convs.{i}"),
        ("decode_head/fpn{i}", "decode_head.fpn_convs.{i}"),
        ("decode_head/fuse", "decode_head.fpn_bottleneck"),
        ("auxiliary_head/conv{i}", "auxiliary_head.convs.{i}"),
    )
    table = [(f"{ours}/conv", f"{theirs}.conv", "convolution") for ours, theirs in blocks]
    table += [(f"{ours}/bn", f"{theirs}.{norm}", "batch_norm") for ours, theirs in blocks]
    for head in ("decode_head", "auxiliary_head"):
        table.append((f"{head}/classifier", f"{head}.{classifier}", "convolution"))
    mark = rf"decode_head\.bottleneck\.{norm}\.\w+"
    return Layout(name, rows(*table), marks=(mark,), anchor=mark)


UPERNET = Family(
    name="an UperNet",
    noun="segmenter",
    mark="decode_head/bottleneck/",
    heads={
        "openmmlab": _layout("openmmlab", "bn", "conv_seg"),
        "transformers": _layout("transformers", "batch_norm", "classifier"),
    },
    beside={
        "openmmlab": "openmmlab",
        "official-dense": "openmmlab",
        "transformers": "transformers",
        "transformers-5": "transformers",
    },
    classifiers=("decode_head/classifier", "auxiliary_head/classifier"),
    classes=("decode_head/classifier/bias", 0),
)
