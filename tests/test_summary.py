"""The verb `summary`: what it prints, as a table and as JSON."""

import json
import subprocess
import sys

from swin_jax import summary
from swin_jax.models.registry import model_names


def test_a_row():
    assert summary.summarize("swin_tiny_patch4_window7_224") == summary.Row(
        "swin_tiny_patch4_window7_224", 224, 1000, 28_288_354, 4_494_405_120
    )


def test_the_table_puts_published_figures_beside_ours():
    rows = [summary.Row("swin_large_patch4_window12_384", 384, 1000, 196_735_516, 103_951_802_880)]
    rows += [summary.Row("swin_tiny_patch4_window7_224_22k", 224, 21841, 44_315_083, 4_510_412_928)]
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


def test_json_prints_one_object_a_line_and_nothing_else():
    command = [sys.executable, "-m", "swin_jax.summary", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [row["model"] for row in rows] == list(model_names())
    assert {tuple(row) for row in rows} == {("model", "image_size", "classes", "params", "macs")}
    assert rows[0]["params"] == 28_288_354
    assert printed.stderr == ""


def test_an_argument_is_refused():
    command = [sys.executable, "-m", "swin_jax.summary", "swin_tiny"]
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert printed.returncode == 2
    assert "unexpected argument 'swin_tiny'" in printed.stderr
