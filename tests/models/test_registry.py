"""Published names: exact parameter counts, MACs, preprocessing, and errors that name the nearest."""

import math

import jax
import jax.numpy as jnp
import pytest

from swin_jax.models import registry
from swin_jax.models.complexity import swin_macs

# Exact counts, and MACs to four digits, by name without the suffix of the number of classes.
COUNTS = {
    "swin_tiny_patch4_window7_224": (28_288_354, 44_315_083, 4.494e9),
    "swin_small_patch4_window7_224": (49_606_258, 65_632_987, 8.746e9),
    "swin_base_patch4_window7_224": (87_768_224, 109_130_249, 15.438e9),
    "swin_large_patch4_window7_224": (196_532_476, 228_565_093, 34.487e9),
    "swin_tiny_patch4_window12_384": (28_338_034, 44_364_763, 14.005e9),
    "swin_small_patch4_window12_384": (49_707_778, 65_734_507, 27.005e9),
    "swin_base_patch4_window12_384": (87_903_584, 109_265_609, 47.105e9),
    "swin_large_patch4_window12_384": (196_735_516, 228_768_133, 103.952e9),
    "swin_tiny_c24_patch4_window8_256": (28_306_432, None, 5.926e9),
    "swin_mlp_tiny_c24_patch4_window8_256": (20_386_632, None, 4.032e9),
    "swin_mlp_tiny_c12_patch4_window8_256": (21_152_072, None, 4.032e9),
    "swin_mlp_tiny_c6_patch4_window8_256": (22_682_952, None, 4.032e9),
    "swin_mlp_base_patch4_window7_224": (60_659_416, None, 10.420e9),
}


def count(name: str) -> int:
    model = registry.create_model(name)
    picture = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), picture)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_with_1000_classes(name: str):
    assert count(name) == COUNTS[name][0]


@pytest.mark.parametrize("name", [name for name in COUNTS if COUNTS[name][1]])
def test_parameters_with_21841_classes(name: str):
    assert registry.create_model(f"{name}_22k").num_classes == 21841
    assert count(f"{name}_22k") == COUNTS[name][1]


def test_the_table_of_counts_is_complete():
    others = set(registry.BASELINES)
    assert {name.removesuffix("_22k") for name in registry.model_names()} - others == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_multiply_accumulates(name: str):
    height, width = registry.preprocessing(name).size
    assert abs(swin_macs(registry.create_model(name), height, width) - COUNTS[name][2]) < 1e6


def test_multiply_accumulates_of_a_model_counted_by_hand():
    model = registry.create_model(
        "swin", embed_dim=4, depths=(1,), num_heads=(2,), window_size=2, num_classes=3
    )
    patch_embed = 4 * 4 * 48 + 4 * 4  # 2x2 patches, 4 channels; its norm
    attention = 4 * 3 * 16 + 2 * 2 * 16 * 2 + 4 * 16  # qkv; scores and values of 2 heads; output
    block = 2 * 4 * 4 + attention + 2 * 4 * 4 * 16
    assert swin_macs(model, 8, 8) == patch_embed + block + 4 * 4 // 2 + 4 * 3


def test_padding_to_windows_is_counted():
    model = registry.create_model("swin_tiny_patch4_window7_224", window_policy="dense")
    assert swin_macs(model, 232, 232) > 1.1 * swin_macs(model, 224, 224)


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [
        ("swin_tiny_patch4_window7_224", (224, 224), 256),
        ("swin_tiny_c24_patch4_window8_256", (256, 256), 292),
        ("swin_base_patch4_window12_384", (384, 384), (384, 384)),
    ],
)
def test_preprocessing(name: str, size: tuple[int, int], resize: int | tuple[int, int]):
    rule = registry.preprocessing(name)
    assert (rule.size, rule.resize, rule.interpolation) == (size, resize, "bicubic")
    assert rule.mean == (0.485, 0.456, 0.406)
    assert rule.std == (0.229, 0.224, 0.225)


def test_an_unknown_name_is_refused_with_the_nearest():
    message = "no model is called 'swin_tiny_224'; did you mean 'swin_tiny_patch4_window7_224'"
    for function in (registry.create_model, registry.preprocessing, registry.published):
        with pytest.raises(ValueError, match=message):
            function("swin_tiny_224")


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"has no field 'drop_path'; did you mean 'drop_path_rate'\?"):
        registry.create_model("swin_tiny_patch4_window7_224", drop_path=0.2)


def test_overrides_replace_published_fields():
    model = registry.create_model("swin_tiny_patch4_window7_224", num_classes=10, drop_path_rate=0.2)
    assert (model.num_classes, model.drop_path_rate, model.depths) == (10, 0.2, (2, 2, 6, 2))
