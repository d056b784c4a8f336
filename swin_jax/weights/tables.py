"""The tables: how official code, timm, torchvision, transformers and OpenMMLab name the parameters of Swin V1.

Facts of those code bases, checked live against timm 1.0.31, torchvision 0.28.0 and transformers 5.23.0 in
tests/parity. Ours and "official" count stages and blocks alike; the others are noted at their rows.
"""

import numpy as np

from swin_jax.ops.windows import relative_position_index, window_region_ids
from swin_jax.weights.layouts import Layout, rows

TABLE = "attn/relative_position_bias_table"


def _blocks(prefix: str) -> tuple[tuple[str, str, str], ...]:
    """The rows of a block where its parts are named as in the official code; `prefix` ends in a dot."""
    parts = (
        ("norm1", "norm"),
        ("attn.qkv", "linear"),
        ("attn.proj", "linear"),
        ("norm2", "norm"),
        ("mlp.fc1", "linear"),
        ("mlp.fc2", "linear"),
    )
    table = ("stage{i}/block{j}/" + TABLE, f"{prefix}{TABLE.replace('/', '.')}", "table")
    return (
        *(("stage{i}/block{j}/" + part.replace(".", "/"), prefix + part, kind) for part, kind in parts),
        table,
    )


EMBEDDING = (
    ("patch_embed/proj", "patch_embed.proj", "convolution"),
    ("patch_embed/norm", "patch_embed.norm", "norm"),
    ("absolute_pos_embed", "absolute_pos_embed", "position"),
)
OFFICIAL_ROWS = (
    *EMBEDDING,
    *_blocks("layers.{i}.blocks.{j}."),
    ("stage{i}/downsample/norm", "layers.{i}.downsample.norm", "norm"),
    ("stage{i}/downsample/reduction", "layers.{i}.downsample.reduction", "linear"),
    ("norm", "norm", "norm"),
    ("head", "head", "linear"),
)
# The published detection and segmentation code: a norm for each output, positions as a map.
OFFICIAL_DENSE_ROWS = (
    *EMBEDDING[:2],
    ("absolute_pos_embed", "absolute_pos_embed", "position_map"),
    *OFFICIAL_ROWS[3:-2],
    ("norm{i}", "norm{i}", "norm"),
)
# timm 0.9 and later: a stage begins with the merging that the others end the stage before with.
TIMM_ROWS = (
    *EMBEDDING[:2],
    *_blocks("layers.{i}.blocks.{j}."),
    ("stage{i}/downsample/norm", "layers.{i+1}.downsample.norm", "norm"),
    ("stage{i}/downsample/reduction", "layers.{i+1}.downsample.reduction", "linear"),
    ("norm", "norm", "norm"),
    ("head", "head.fc", "linear"),
)
# One list of layers: 0 the embedding, then stage and merging in turn.
TORCHVISION_ROWS = (
    ("patch_embed/proj", "features.0.0", "convolution"),
    ("patch_embed/norm", "features.0.2", "norm"),
    ("stage{i}/block{j}/norm1", "features.{2i+1}.{j}.norm1", "norm"),
    ("stage{i}/block{j}/attn/qkv", "features.{2i+1}.{j}.attn.qkv", "linear"),
    ("stage{i}/block{j}/attn/proj", "features.{2i+1}.{j}.attn.proj", "linear"),
    ("stage{i}/block{j}/" + TABLE, "features.{2i+1}.{j}.attn.relative_position_bias_table", "table"),
    ("stage{i}/block{j}/norm2", "features.{2i+1}.{j}.norm2", "norm"),
    ("stage{i}/block{j}/mlp/fc1", "features.{2i+1}.{j}.mlp.0", "linear"),
    ("stage{i}/block{j}/mlp/fc2", "features.{2i+1}.{j}.mlp.3", "linear"),
    ("stage{i}/downsample/norm", "features.{2i+2}.norm", "norm"),
    ("stage{i}/downsample/reduction", "features.{2i+2}.reduction", "linear"),
    ("norm", "norm", "norm"),
    ("head", "head", "linear"),
)


def _transformers(
    *, attention: str, projections: tuple[str, ...], out: str, table: str, mlp: tuple[str, str]
):
    block = "encoder.layers.{i}.blocks.{j}."
    joined = tuple(f"{block}attention.{attention}{name}" for name in projections)
    return (
        ("patch_embed/proj", "embeddings.patch_embeddings.projection", "convolution"),
        ("patch_embed/norm", "embeddings.norm", "norm"),
        ("absolute_pos_embed", "embeddings.position_embeddings", "position"),
        ("stage{i}/block{j}/norm1", block + "layernorm_before", "norm"),
        ("stage{i}/block{j}/attn/qkv", joined, "joined"),
        ("stage{i}/block{j}/attn/proj", block + out, "linear"),
        ("stage{i}/block{j}/" + TABLE, block + f"attention.{table}relative_position_bias_table", "table"),
        ("stage{i}/block{j}/norm2", block + "layernorm_after", "norm"),
        ("stage{i}/block{j}/mlp/fc1", block + mlp[0], "linear"),
        ("stage{i}/block{j}/mlp/fc2", block + mlp[1], "linear"),
        ("stage{i}/downsample/norm", "encoder.layers.{i}.downsample.norm", "norm"),
        ("stage{i}/downsample/reduction", "encoder.layers.{i}.downsample.reduction", "linear"),
        ("norm", "layernorm", "norm"),
        ("norm{i}", "hidden_states_norms.stage{i+1}", "norm"),
        ("head", "classifier", "linear"),
    )


# The names of files, of every version; and those of version 5 in memory.
TRANSFORMERS_ROWS = _transformers(
    attention="self.",
    projections=("query", "key", "value"),
    out="attention.output.dense",
    table="self.",
    mlp=("intermediate.dense", "output.dense"),
)
TRANSFORMERS_5_ROWS = _transformers(
    attention="",
    projections=("q_proj", "k_proj", "v_proj"),
    out="attention.o_proj",
    table="relative_position_bias.",
    mlp=("mlp.fc1", "mlp.fc2"),
)
# mmpretrain, mmdet 3, mmsegmentation 1: `torch.nn.Unfold` in the merging puts its inputs in another order.
OPENMMLAB_ROWS = (
    ("patch_embed/proj", "patch_embed.projection", "convolution"),
    ("patch_embed/norm", "patch_embed.norm", "norm"),
    ("absolute_pos_embed", "absolute_pos_embed", "position"),
    ("stage{i}/block{j}/norm1", "stages.{i}.blocks.{j}.norm1", "norm"),
    ("stage{i}/block{j}/attn/qkv", "stages.{i}.blocks.{j}.attn.w_msa.qkv", "linear"),
    ("stage{i}/block{j}/attn/proj", "stages.{i}.blocks.{j}.attn.w_msa.proj", "linear"),
    ("stage{i}/block{j}/" + TABLE, "stages.{i}.blocks.{j}.attn.w_msa.relative_position_bias_table", "table"),
    ("stage{i}/block{j}/norm2", "stages.{i}.blocks.{j}.norm2", "norm"),
    ("stage{i}/block{j}/mlp/fc1", "stages.{i}.blocks.{j}.ffn.layers.0.0", "linear"),
    ("stage{i}/block{j}/mlp/fc2", "stages.{i}.blocks.{j}.ffn.layers.1", "linear"),
    ("stage{i}/downsample/norm", "stages.{i}.downsample.norm", "unfold_norm"),
    ("stage{i}/downsample/reduction", "stages.{i}.downsample.reduction", "unfold_linear"),
    ("norm{i}", "norm{i}", "norm"),
    ("head", "head.fc", "linear"),
)


def _index(window: int) -> np.ndarray:
    return relative_position_index(window).astype(np.int64)


def _official_buffers(
    depths: tuple[int, ...], window: int, size: tuple[int, int], patch: int
) -> dict[str, np.ndarray]:
    """The index of every block, and the mask of every shifted block on pictures of `size`."""
    found = {}
    for stage, depth in enumerate(depths):
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            found[f"{name}.attn.relative_position_index"] = _index(window)
            height, width = (-(-side // (patch * 2**stage)) for side in size)
            if block % 2 == 1 and min(height, width) > window:
                found[f"{name}.attn_mask"] = _mask(height, width, window)
    return found


def _mask(height: int, width: int, window: int) -> np.ndarray:
    height, width = (-(-side // window) * window for side in (height, width))
    ids = window_region_ids(height, width, window, window // 2)
    return np.where(ids[:, :, None] == ids[:, None, :], 0.0, -100.0).astype(np.float32)


def _index_buffers(name: str, *, flat: bool = False):
    def buffers(
        depths: tuple[int, ...], window: int, size: tuple[int, int], patch: int
    ) -> dict[str, np.ndarray]:
        index = _index(window).reshape(-1) if flat else _index(window)
        return {
            name.format(stage=stage, layer=2 * stage + 1, block=block): index
            for stage, depth in enumerate(depths)
            for block in range(depth)
        }

    return buffers


BLOCKS = r"layers\.\d+\.blocks\.\d+\."
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "transformers",
            rows(*TRANSFORMERS_ROWS),
            marks=(r"encoder\.layers\.\d+\.blocks\.\d+\.attention\.self\.",),
            anchor=r"embeddings\.patch_embeddings\.projection\.weight",
            prefix="swin.",
            outside=r"classifier\.|hidden_states_norms\.",
        ),
        Layout(
            "transformers-5",
            rows(*TRANSFORMERS_5_ROWS),
            marks=(r"encoder\.layers\.\d+\.blocks\.\d+\.attention\.[qkv]_proj\.",),
            anchor=r"embeddings\.patch_embeddings\.projection\.weight",
            prefix="swin.",
            outside=r"classifier\.|hidden_states_norms\.",
        ),
        Layout(
            "torchvision",
            rows(*TORCHVISION_ROWS),
            marks=(r"features\.\d+\.\d+\.attn\.",),
            anchor=r"features\.0\.0\.weight",
            write_buffers=_index_buffers("features.{layer}.{block}.attn.relative_position_index", flat=True),
        ),
        Layout(
            "openmmlab",
            rows(*OPENMMLAB_ROWS),
            marks=(r"stages\.\d+\.blocks\.\d+\.attn\.w_msa\.",),
            anchor=r"patch_embed\.projection\.weight",
            prefix="backbone.",
            outside=r"head\.",
            container="state_dict",
            last_norm=True,
            write_buffers=_index_buffers("stages.{stage}.blocks.{block}.attn.w_msa.relative_position_index"),
        ),
        Layout(
            "timm",
            rows(*TIMM_ROWS),
            marks=(
                r"\A(?![\s\S]*layers\.0\.downsample\.)[\s\S]*(layers\.1\.downsample\.|head\.fc\.)",
                r"layers\.0\.blocks\.",
            ),
            anchor=r"patch_embed\.proj\.weight",
        ),
        Layout(
            "official-dense",
            rows(*OFFICIAL_DENSE_ROWS),
            marks=(BLOCKS, r"^(?!.*blocks).*\bnorm\d+\.weight$"),
            anchor=r"patch_embed\.proj\.weight",
            prefix="backbone.",
            container="state_dict",
            write_buffers=_index_buffers("layers.{stage}.blocks.{block}.attn.relative_position_index"),
        ),
        # Also timm before 0.9.
        Layout(
            "official",
            rows(*OFFICIAL_ROWS),
            marks=(BLOCKS,),
            anchor=r"patch_embed\.proj\.weight",
            container="model",
            write_buffers=_official_buffers,
        ),
    )
}
