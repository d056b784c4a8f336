"""The tables of the paper as experiments, and what a study says of its runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from swin_jax import experiment
from swin_jax.ablate import table_file
from swin_jax.config import to_dict
from swin_jax.studies import report
from swin_jax.studies.runs import Study, check_alike, train
from swin_jax.studies.table import load_module
from swin_jax.training.run_directory import metrics_line, write_config

ROOT = Path(__file__).resolve().parents[1]
ABLATIONS = ROOT / "experiments" / "ablations"
TABLES = {name: load_module(table_file(name)) for name in ("1", "4", "6", "8", "10", "augmentation")}
ROWS = [
    pytest.param(module.TABLE, row, scale, task, id=f"table {name}, {row}, {scale} {task}")
    for name, module in TABLES.items()
    for scale, task in module.TABLE.bases
    for row in module.TABLE.trained(scale)
]


@pytest.mark.parametrize(("table", "row", "scale", "task"), ROWS)
def test_every_row_is_an_experiment(table, row, scale, task):
    config = table.config(f"{row},{scale},{task}")
    if table.rows[row].begins_with:
        assert table.rows[row].begins_with in table.rows
    assert experiment.make_task(config, ("a", "b", "c")) is not None


def test_rows_of_table_4_differ_in_what_they_say():
    table = TABLES["4"].TABLE
    base = to_dict(table.config("shifted"))
    assert to_dict(table.config("no_shift"))["model"] == base["model"] | {"shift": "none"}
    both = {"absolute_position_embedding": True, "relative_position": False}
    assert to_dict(table.config("absolute"))["model"] == base["model"] | both


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ("noshift", "the table has no row 'noshift'; did you mean 'no_shift'"),
        ("no_shift,tiny", "there is no scale 'tiny'"),
        ("no_shift,paper,pose", "there is no task 'pose'"),
        (
            "no_shift,small,detection",
            "this table has no detection at scale small; it has paper classification",
        ),
    ],
)
def test_unknown_rows_scales_and_tasks_are_refused(variant, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        TABLES["4"].TABLE.config(variant)


def test_a_row_that_is_not_there_at_a_scale_is_refused():
    with pytest.raises(ValueError, match="row 'mixer_b16' is not there at scale micro, only at paper"):
        TABLES["10"].TABLE.config("mixer_b16,micro")


def test_a_published_figure_alone_is_not_trained():
    with pytest.raises(ValueError, match="'regnety_4g' is a published figure alone"):
        TABLES["1"].TABLE.config("regnety_4g")


@pytest.fixture(name="study")
def fixture_study(tmp_path):
    study = Study(TABLES["4"].TABLE, ABLATIONS / "table4.py", tmp_path / "study", "micro", "classification")
    study.claim()
    return study


def finish(study: Study, row: str, seed: int, top1: float, code: str = "a", **changes) -> None:
    """Leaves what a finished run leaves."""
    config = to_dict(study.table.config(f"{row},{study.scale}")) | {"seed": seed} | changes
    directory = study.run_directory(row, seed)
    directory.mkdir(parents=True)
    write_config(directory, config, {"code": {"digest": code}, "versions": {"jax": "1"}})
    lines = ({"step": step, "eval/top1": top1 * step / 10, "eval/top5": 1.0} for step in (5, 10))
    (directory / "metrics.jsonl").write_bytes(b"".join(map(metrics_line, lines)))
    (directory / "card.json").write_text("{}")


def test_a_table_has_means_spreads_and_both_differences(study):
    for seed, top1 in enumerate((0.8, 0.9)):
        finish(study, "shifted", seed, top1)
    finish(study, "no_shift", 0, 0.5)
    check_alike(study, study.table.trained(study.scale))
    found = report.collect(study, {"absolute, seed 0": "it broke"})
    text = report.markdown(found)
    assert "| no shifting | 1 | 50.0 | -35.0 | 80.2 | -1.1 |" in text
    assert "| shifted windows (relative position) | 2 | 85.0 ± 7.1 | +0.0 | 81.3 | +0.0 |" in text
    assert "Not finished: absolute, seed 0: it broke" in text
    paths = report.write(study, found)
    assert [Path(path).suffix for path in paths] == [".md", ".json", ".png"]
    assert json.loads(Path(paths[1]).read_text())["rows"]["shifted"]["found"]["top1"]["values"] == [
        80.0,
        90.0,
    ]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"total": "9 steps"}, 'total: "1000 steps" -> "9 steps"'),
        ({"code": "b"}, "code: files a -> files b"),
        ({"data_fingerprint": "0f"}, 'data_fingerprint: absent -> "0f"'),
    ],
)
def test_rows_that_are_not_comparable_are_refused(study, changes, name):
    finish(study, "no_shift", 0, 0.5)
    finish(study, "shifted", 0, 0.5, **changes)
    with pytest.raises(ValueError, match=re.escape(name)):
        check_alike(study, study.table.trained(study.scale))


def test_without_a_finished_run_there_is_no_table(study):
    with pytest.raises(ValueError, match="has no finished run of classification"):
        report.collect(study, {})


def test_a_row_waits_for_the_one_it_begins_with(tmp_path):
    study = Study(TABLES["8"].TABLE, ABLATIONS / "table8.py", tmp_path, "micro", "classification")
    assert train(study, "tiny_384", 0) == "it begins with row 'tiny_224', seed 0, which is not finished"


def ablate(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "swin_jax.ablate", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workdir=x"], "--table is missing"),
        (["--table=7", "--workdir=x"], "--table is one of 1, 10, 4, 5, 6, 8, augmentation, or a file"),
        (["--table=4"], "--workdir is missing"),
        (["--table=4", "--scale=tiny", "--workdir=x"], "there is no scale 'tiny'"),
        (["--table=4", "--row=shifty", "--workdir=x"], "did you mean 'shifted'"),
        (["--table=4", "--seeds=a", "--workdir=x"], "expected numbers such as 0,1,2"),
        (["--table=4", "--override=total", "--workdir=x"], "expected field=value"),
    ],
)
def test_a_wrong_command_gets_one_sentence(arguments, sentence):
    done = ablate(*arguments)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sentence in done.stderr


def test_the_directory_of_another_study_is_refused(study):
    done = ablate("--table=6", "--scale=micro", "--collect", f"--workdir={study.directory}")
    assert "holds a study with table table4.py, not table6.py" in done.stderr
    (study.directory.parent / "other").mkdir()
    (study.directory.parent / "other" / "file").write_text("")
    done = ablate("--table=6", "--scale=micro", f"--workdir={study.directory.parent / 'other'}")
    assert "is not empty and holds no study" in done.stderr


@pytest.mark.long
def test_a_row_that_breaks_is_named_and_the_others_go_on(tmp_path):
    table = tmp_path / "mine.py"
    table.write_text(
        "from experiments.ablations.bases import micro_classification\n"
        "from swin_jax.studies.table import Row, Table\n"
        "TABLE = Table('Mine', 'good', {\n"
        "    'bad': Row('bad', {'schedule.peak': 1e30, 'schedule.warmup': '0 steps'}),\n"
        "    'good': Row('good')}, {('micro', 'classification'): micro_classification})\n"
        "get_config = TABLE.config\n"
    )
    arguments = [
        f"--table={table}",
        "--scale=micro",
        "--seeds=0",
        f"--workdir={tmp_path / 'study'}",
        "--override=total=6 steps",
        "--override=evaluate_every=6 steps",
        "--override=model.depths=(1,)",
        "--override=schedule.warmup=0 steps",
        "--override=model.num_heads=(2,)",
    ]
    done = ablate(*arguments)
    assert done.returncode == 1, done.stderr
    assert re.search(r"row bad, seed 0 is not finished: .*not finite", done.stderr), done.stderr
    assert "1 of 2 runs are not finished: bad, seed 0" in done.stderr
    assert re.search(r"\| good \| 1 \| \d", done.stdout)
    before = os.stat(tmp_path / "study/good/classification/seed0/metrics.jsonl").st_mtime_ns
    assert ablate(*arguments).returncode == 1
    assert os.stat(tmp_path / "study/good/classification/seed0/metrics.jsonl").st_mtime_ns == before


@pytest.mark.long
def test_the_time_of_attention_is_a_table(tmp_path):
    done = ablate("--table=5", "--scale=micro", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| shifted window, cyclic |") == 2
    found = json.loads((tmp_path / "table.json").read_text())["seconds"]["forward"]["swin"]
    assert set(found) == {"sliding_naive", "sliding", "performer", "no_shift", "padding", "cyclic"}
    assert all(value > 0 for times in found.values() for value in times)
