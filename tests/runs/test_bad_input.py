"""What a user can get wrong: one clear sentence, before a device works, and nothing lost."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from swin_jax import train
from swin_jax.config import Config
from swin_jax.data.decode import UnreadablePicture
from swin_jax.restore import open_run
from swin_jax.training.checkpoint import Checkpoints
from swin_jax.training.run_directory import read_metrics
from tests.runs.conftest import ROOT, STEPS, flags, run

Micro = Callable[..., Config]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__name": "swin_tny_patch4_window7_224"}, r"did you mean 'swin_tiny_patch4_window7_224'"),
        (
            {"model__name": "swin_tiny_patch4_window7_224_22k"},
            r"has 21841 classes, but the data have 3; name 'swin_tiny_patch4_window7_224', or",
        ),
        ({"model__dtype": "float16"}, r"model.dtype is 'float16'; did you mean 'bfloat16'"),
        ({"model__num_heads": (3,)}, r"num_heads\[0\] must divide the 16 channels of stage 0, got 3"),
        ({"model__window_policy": "dens"}, r"window_policy .*'dens'.*dense"),
        ({"model__remat": "ful"}, r"remat .*'ful'.*full"),
        ({"task": "clasification"}, r"task is 'clasification'; did you mean 'classification'"),
        ({"batch_size": 9, "accumulation": 2}, "batch_size 9 is not divisible by accumulation 2"),
        ({"batch_size": 9}, "batch_size 9 is not divisible by 8 devices; use 8 or 16"),
        ({"mesh__fsdp": 3}, "mesh.fsdp is 3, which does not divide the 8 devices"),
        ({"mesh__platform": "tpu"}, "mesh.platform is 'tpu', but this machine offers cpu"),
        ({"total": "12"}, r"total is '12'; write an amount and a unit"),
        ({"schedule__kind": "cosin"}, "schedule kind is 'cosin'; expected one of cosine"),
        ({"schedule__warmup": "99 steps"}, r"warmup_steps is 99; expected 0 to total_steps = 12"),
        ({"optimizer__name": "adam"}, "optimizer.name is 'adam'; expected one of adamw, sgd"),
        ({"optimizer__frozen": ("nothing",)}, "optimizer.frozen pattern 'nothing' matches no parameter"),
        ({"ema__decay": 1.0}, "ema.decay is 1.0; expected above 0 and below 1"),
        ({"ema__decay": 0.9, "ema__warmup": "slow"}, "ema.warmup is 'slow'; expected one of"),
        ({"profile_steps": "7"}, r"profile_steps is '7'; write first:stop"),
        ({"data__source": "foldr"}, r"foldr.*folder"),
        ({"data__eval_split": "test"}, r"test.*(train|val)"),
        ({"data__repeats": 0}, "data.repeats is 0; give 1"),
        ({"augment__rand_augment": "rnd-m9"}, "augment.rand_augment is 'rnd-m9'; expected"),
        ({"augment__erase_probability": 1.5}, "augment.erase_probability is 1.5; give a probability"),
        ({"augment__mixup_alpha": -0.8}, "augment.mixup_alpha is -0.8; give a number above 0"),
        ({"augment__cutmix_alpha": 1.0, "batch_size": 9}, "batch_size is 9; mixup and cutmix pair its rows"),
        ({"augment__three_augment": True, "augment__rand_augment": "rand-m9"}, "exclude each other"),
        ({"init_from": "/nowhere"}, "/nowhere does not exist"),
        (
            {"init_from": "required"},
            "^init_from is missing: this recipe fine-tunes; name .*, or 'none' to train from nothing$",
        ),
        ({"init_from": "none", "init_head": "map.txt"}, "init_head is 'map.txt', but there is no init_from"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_configs(micro: Micro, tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        train.prepare(micro(**fields), str(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()  # nothing was begun


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--config=experiments/own_images.py", "--config.bach_size=8"],
            "no field 'bach_size'; did you mean 'batch_size'?",
        ),
        (["--config=experiments/own_images.py", "--config.batch_size=many"], "--config.batch_size=many"),
        (
            ["--config=experiments/own_images.py:huge"],
            "own_images.py has no variant 'huge'; known: swin_tiny, micro_32",
        ),
        (["--config=experiments/none.py"], "No such file or directory: 'experiments/none.py'"),
        ([], "--config is missing"),
        (["--config=experiments/own_images.py", "--config.data.root=/none"], "/none"),
        (["--confg=x"], "Unknown command line flag 'confg'. Did you mean: config"),
        (["--config=experiments/own_images.py", "stray"], "unexpected argument 'stray'"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else None,
)
def test_command_lines_end_with_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = run("train", *arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode in (1, 2)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_workdir_is_required(micro: Micro) -> None:
    with pytest.raises(ValueError, match="--workdir is missing"):
        train.prepare(micro(), "")


def test_missing_and_empty_folders(micro: Micro, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        train.prepare(micro(data__root=str(tmp_path / "none")), str(tmp_path / "run"))
    (tmp_path / "empty" / "train" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "val" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"empty.*no pictures|no pictures.*empty"):
        train.prepare(micro(data__root=str(tmp_path / "empty")), str(tmp_path / "run"))


def picture(suffix: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(data, suffix)
    return data.getvalue()


def test_a_class_in_val_and_not_in_train(micro: Micro, tmp_path: Path) -> None:
    for place in ("train/cat/1.png", "val/cat/1.png", "val/dog/1.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(picture())
    with pytest.raises(ValueError, match="dog"):
        train.prepare(micro(data__root=str(tmp_path)), str(tmp_path / "run"))


@pytest.mark.parametrize(
    "content", [b"not a picture", picture("JPEG")[:200], b""], ids=["text", "truncated", "empty"]
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_an_unreadable_picture_is_named(micro: Micro, tmp_path: Path, content: bytes, packed: bool) -> None:
    files = {
        f"{split}/{name}/{i}.png": picture() for split in ("train", "val") for name in "ab" for i in range(4)
    }
    files["train/b/broken.jpg"] = content
    root = tmp_path / "data"
    if packed:
        root = tmp_path / "data.zip"
        with zipfile.ZipFile(root, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    plan = train.prepare(micro(data__root=str(root), total="8 steps"), str(tmp_path / "run"))
    batches = plan.data.train_batches(0, 0, 1)
    with pytest.raises(UnreadablePicture, match=r"train/b/broken\.jpg cannot be read as a picture"):
        [next(batches) for _ in range(3)]
    tolerant = train.prepare(micro(data__root=str(root), data__max_unreadable=1), str(tmp_path / "run2"))
    batches = tolerant.data.train_batches(0, 0, 1)
    assert sum(int(next(batches)["replaced"].sum()) for _ in range(9)) >= 8  # 72 rows of 9 examples


def test_a_run_directory_of_another_config(folder: Path, micro: Micro, tmp_path: Path) -> None:
    train.prepare(micro(), str(tmp_path))
    kept = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"seed: 0 -> 1.*there -> asked for") as caught:
        train.prepare(micro(seed=1, optimizer__weight_decay=0.1), str(tmp_path))
    assert "optimizer.weight_decay: 0.05 -> 0.1" in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == kept
    # What changes none of a run's numbers may change.
    train.prepare(micro(data__threads=1, log_every=3, checkpoint_every="1 step"), str(tmp_path))


def test_other_data_under_the_same_config(folder: Path, micro: Micro, tmp_path: Path) -> None:
    train.prepare(micro(), str(tmp_path / "run"))
    other = tmp_path / "other"
    for place in ("train/a/1.png", "val/a/1.png"):
        (other / place).parent.mkdir(parents=True)
        (other / place).write_bytes(picture())
    with pytest.raises(ValueError, match="data_identity"):
        train.prepare(micro(data__root=str(other)), str(tmp_path / "run"))


def test_the_same_names_with_other_labels_or_sizes(folder: Path, micro: Micro, tmp_path: Path) -> None:
    """As many pictures of as many classes, and yet other data; evaluation data count, too."""
    train.prepare(micro(), str(tmp_path / "run"))
    other = shutil.copytree(folder, tmp_path / "other" / folder.name)
    train.prepare(micro(data__root=str(other)), str(tmp_path / "run"))  # the same, elsewhere
    (other / "val" / "red" / "0.png").write_bytes(picture())
    with pytest.raises(ValueError, match=r"data_fingerprint.evaluation: \"\w{32}\" -> \"\w{32}\" \(there"):
        train.prepare(micro(data__root=str(other)), str(tmp_path / "run"))


def test_a_checkpoint_of_another_model_or_head(micro: Micro, tmp_path: Path) -> None:
    train.train(train.prepare(micro(total="2 steps", schedule__warmup="0 steps"), str(tmp_path / "run")))
    with pytest.raises(ValueError, match=r"is another model: .*they differ in embed_dim"):
        train.prepare(micro(model__embed_dim=32, init_from=str(tmp_path / "run")), str(tmp_path / "wider"))
    names = json.loads((tmp_path / "run" / "classes.json").read_text())
    (tmp_path / "run" / "classes.json").write_text(json.dumps([*names, "more"]))
    with pytest.raises(ValueError, match=r"head/kernel is \(16, 3\), expected \(16, 4\)"):
        open_run(str(tmp_path / "run")).load()


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run directory"):
        open_run(str(tmp_path))
    done = run("evaluate", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert (
        done.stderr.strip().splitlines()[-1]
        == f"error: {tmp_path} is not a run directory: it has no config.json"
    )


def test_a_file_in_the_place_of_the_run_directory(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match=r"--workdir=.* cannot be written"):
        train.prepare(micro(), str(tmp_path / "run"))
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.long
def test_a_full_disk_ends_the_run_and_it_resumes(folder: Path, tmp_path: Path) -> None:
    """No file may grow beyond 20 kB: the checkpoints of 6,960 parameters and their moments do."""
    limited = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        "runpy.run_module('swin_jax.train', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *flags(folder), f"--workdir={tmp_path}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: cannot write")
    assert str(tmp_path) in last
    again = run("train", *flags(folder), f"--workdir={tmp_path}")
    assert again.returncode == 0, again.stderr
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps()[-1] == STEPS
    assert [line["step"] for line in read_metrics(tmp_path) if "loss" in line] == list(range(1, STEPS + 1))
