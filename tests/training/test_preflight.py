"""What is wrong is named before a device works."""

from pathlib import Path

import pytest

from swin_jax.training import preflight


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("300 epochs", 30000),
        ("1 epoch", 100),
        ("0.5 epochs", 50),
        ("5000 steps", 5000),
        ("1 step", 1),
        ("1e6 examples", 10000),
        ("12_800 examples", 128),
        ("1 example", 1),
        ("0 epochs", 0),
    ],
)
def test_durations(text: str, steps: int) -> None:
    assert preflight.duration("total", text, batch_size=100, num_examples=10_000) == steps


@pytest.mark.parametrize(
    "text", ["300", "epochs", "", "300 years", "-1 epochs", "nan epochs", "inf steps", "a b c"]
)
def test_bad_durations_name_the_field_and_the_form(text: str) -> None:
    with pytest.raises(
        ValueError, match=r'schedule.warmup is .*such as "300 epochs" or "5000 steps"'
    ) as caught:
        preflight.duration("schedule.warmup", text, batch_size=1, num_examples=1)
    assert repr(text) in str(caught.value)


def test_an_epoch_is_not_cut_to_whole_batches() -> None:
    assert preflight.duration("total", "300 epochs", batch_size=1024, num_examples=1_281_167) == 375_342


@pytest.mark.parametrize(
    ("batch", "devices", "hosts", "accumulation", "message"),
    [
        (100, 8, 1, 1, "batch_size 100 is not divisible by 8 devices; use 96 or 104"),
        (4, 8, 1, 1, "batch_size 4 is not divisible by 8 devices; use 8"),
        (64, 8, 1, 3, "batch_size 64 is not divisible by accumulation 3"),
        (48, 8, 1, 4, "batch_size 48 is not divisible by 8 devices x accumulation 4; use 32 or 64"),
        (64, 8, 3, 1, "batch_size 64 is not divisible by the 3 hosts"),
        (0, 1, 1, 1, "batch_size is 0; it must be at least 1"),
        (8, 1, 1, 0, "accumulation is 0; it must be at least 1"),
    ],
)
def test_batch_sizes_that_do_not_divide(
    batch: int, devices: int, hosts: int, accumulation: int, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        preflight.check_batch_size(batch, devices=devices, hosts=hosts, accumulation=accumulation)


def test_batch_sizes_that_divide() -> None:
    preflight.check_batch_size(64, devices=8, hosts=2, accumulation=4)


def test_workdir_is_made_and_left_clean(tmp_path: Path) -> None:
    path = preflight.check_workdir(str(tmp_path / "a" / "b"))
    assert list(path.iterdir()) == []


def test_workdir_missing_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--workdir is missing"):
        preflight.check_workdir("")
    (tmp_path / "file").write_text("here")
    with pytest.raises(
        ValueError, match=r"--workdir=.*file.* cannot be written \(.*\); name a writable directory"
    ):
        preflight.check_workdir(str(tmp_path / "file" / "run"))
    assert (tmp_path / "file").read_text() == "here"


def test_batch_fields_name_both_sides() -> None:
    fields = {"image": ((32, 32, 3), "uint8"), "label": ((), "int32")}
    preflight.check_batch_fields([fields], fields | {"more": ((), "bool")})
    with pytest.raises(ValueError, match=r"task reads the batch field 'label', the data produce \['image'\]"):
        preflight.check_batch_fields([fields], {"image": fields["image"]})
    with pytest.raises(
        ValueError, match=r"'image': the task reads uint8 \(32, 32, 3\) .* produce uint8 \(64, 64, 3\)"
    ):
        preflight.check_batch_fields([fields], fields | {"image": ((64, 64, 3), "uint8")})


def test_nearest() -> None:
    assert preflight.nearest("swin_tny", ["swin_tiny", "other"]) == "did you mean 'swin_tiny'?"
    assert preflight.nearest("qqq", ["a", "b"]) == "known: a, b"
