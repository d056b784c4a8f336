"""The verb `summary`: what it prints, as a table and as JSON."""

import json
import subprocess
import sys

from swin_jax import summary
from swin_jax.models.detectors import detector_names
from swin_jax.models.registry import model_names
from swin_jax.models.segmenters import segmenter_names

SEGMENTERS = {
    "upernet_swin_tiny": (59_941_862, 944.9e9),
    "upernet_swin_small": (81_259_766, 1035.8e9),
    "upernet_swin_base": (121_279_716, 1185.2e9),
    "upernet_swin_large": (233_759_936, 1608.2e9),
    # Tables of 23^2 offsets instead of 13^2: 360 for each head of every block.
    "upernet_swin_base_window12": (121_279_716 + 360 * (4 * 2 + 8 * 2 + 16 * 18 + 32 * 2), 1189.6e9),
    "upernet_swin_large_window12": (233_759_936 + 360 * (6 * 2 + 12 * 2 + 24 * 18 + 48 * 2), 1618.0e9),
    "upernet_resnet50": (66_496_876, 956.1e9),
    "upernet_resnet101": (85_489_004, 1033.7e9),
    "upernet_deit_small": (53_548_076, 961.3e9),
}
# The paper's table and the released models: 44M 260G, 48M 267G, 69M 359G.
DETECTORS = {
    "mask_rcnn_resnet50": (44_396_336, 260e9),
    "mask_rcnn_swin_tiny": (47_794_602, 267e9),
    "mask_rcnn_swin_small": (69_112_506, 359e9),
    "cascade_mask_rcnn_resnet50": (82_231_538, 739e9),
    "cascade_mask_rcnn_swin_base": (144_977_002, 982e9),
    "htcpp_swin_large": (284_741_117, 1470e9),
}


def test_a_row():
    assert summary.summarize("swin_tiny_patch4_window7_224") == summary.Row(
        "swin_tiny_patch4_window7_224", 224, 1000, 28_288_354, 4_494_405_120
    )


def test_the_table_puts_published_figures_beside_ours():
    rows = [summary.Row("swin_large_patch4_window12_384", 384, 1000, 196_735_516, 103_951_802_880)]
    rows += [summary.Row("swin_tiny_patch4_window7_224_22k", 224, 21841, 44_315_083, 4_510_412_928)]
    rows += [summary.Row("upernet_swin_tiny", (512, 2048), 150, 59_941_862, 944_915_398_656)]
    lines = summary.table(rows).splitlines()
    assert lines[1].split() == [
        "swin_large_patch4_window12_384",
        "384",
        "1000",
        "196,735,516",
        "197M",
        "103.952G",
        "103.9G",
    ]
    assert lines[2].split()[-4:] == ["44,315,083", "-", "4.510G", "-"]
    assert lines[3].split()[1:] == ["512x2048", "150", "59,941,862", "60M", "944.915G", "945.0G"]


def test_json_prints_one_object_a_line_and_nothing_else():
    command = [sys.executable, "-m", "swin_jax.summary", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [row["model"] for row in rows] == [*model_names(), *segmenter_names(), *detector_names()]
    assert {tuple(row) for row in rows} == {("model", "image_size", "classes", "params", "macs")}
    assert rows[0]["params"] == 28_288_354
    assert printed.stderr == ""
    # UperNet with 150 classes and its auxiliary head at 512 x 2048: exact parameters, MACs as published.
    others = {row["model"]: row for row in rows[len(model_names()) :]}
    detectors = {name: others.pop(name) for name in detector_names()}
    segmenters = others
    for name, (params, macs) in SEGMENTERS.items():
        row = segmenters.pop(name)
        assert (row["params"], row["classes"], row["image_size"]) == (params, 150, [512, 2048])
        assert abs(row["macs"] / macs - 1) < 5e-4
    assert not segmenters
    # Detectors at 800 x 1280, with 80 classes.
    for name, (params, macs) in DETECTORS.items():
        row = detectors[name]
        assert (row["params"], row["classes"], row["image_size"]) == (params, 80, [800, 1280])
        assert abs(row["macs"] / macs - 1) < 5e-3


def test_an_argument_is_refused():
    command = [sys.executable, "-m", "swin_jax.summary", "swin_tiny"]
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert printed.returncode == 2
    assert "unexpected argument 'swin_tiny'" in printed.stderr
