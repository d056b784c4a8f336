"""What a run writes survives kills, resumes and full disks; what it shows a person is right."""

import io
import json
import math
import os
import struct
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from swin_jax.training import record as record_module
from swin_jax.training import run_directory
from swin_jax.training.provenance import library_versions
from swin_jax.training.record import Clock, Record, duration, progress_line
from swin_jax.training.run_directory import (
    GrowingFile,
    RunDirectoryError,
    claim,
    differences,
    read_config,
    read_metrics,
    write_atomically,
    write_config,
)


def open_record(workdir, *, start_step=0, total_steps=10, log_every=2, **options):
    options = {"stream": io.StringIO(), "terminal": False} | options
    return Record(
        workdir,
        start_step=start_step,
        total_steps=total_steps,
        batch_size=8,
        log_every=log_every,
        **options,
    )


def train(record, first, last):
    for step in range(first, last + 1):
        record.train(step, {"loss": 1 / step, "learning_rate": 1e-3}, data_wait=0.0)


def values(workdir, *names):
    return [tuple(line.get(name) for name in ("step", *names)) for line in read_metrics(workdir)]


def test_lines_at_the_interval_and_at_the_end(tmp_path):
    with open_record(tmp_path, total_steps=7, log_every=3) as record:
        train(record, 1, 7)
    assert values(tmp_path, "loss") == [(3, 1 / 3), (6, 1 / 6), (7, 1 / 7)]


def test_resume_drops_what_came_after_the_checkpoint(tmp_path):
    with open_record(tmp_path) as record:
        train(record, 1, 8)
        record.evaluation(8, {"top1": 0.5})
    # The kill came after step 8, the newest checkpoint is of step 5.
    with open_record(tmp_path, start_step=5) as record:
        assert [step for (step,) in values(tmp_path)] == [2, 4]
        train(record, 6, 10)
    assert [step for (step,) in values(tmp_path)] == [2, 4, 6, 8, 10]
    with open_record(tmp_path):
        assert values(tmp_path) == [], "a run that begins anew has no past"


def test_a_resumed_curve_is_that_of_an_uninterrupted_run(tmp_path):
    with open_record(tmp_path / "whole") as record:
        train(record, 1, 10)
    with open_record(tmp_path / "cut") as record:
        train(record, 1, 7)
    with open_record(tmp_path / "cut", start_step=3) as record:
        train(record, 4, 10)
    assert values(tmp_path / "cut", "loss") == values(tmp_path / "whole", "loss")


def test_a_half_written_last_line_is_tolerated(tmp_path):
    with open_record(tmp_path) as record:
        train(record, 1, 4)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    with open_record(tmp_path, start_step=4) as record:
        train(record, 5, 6)
    assert [step for (step,) in values(tmp_path)] == [2, 6]


def test_a_damaged_line_is_named_and_the_file_left_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    text = b'{"step": 2}\n{"step": \n{"step": 4}\n'
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"line 2 of .*metrics.jsonl is damaged"):
        open_record(tmp_path, start_step=4)
    assert path.read_bytes() == text


def test_numbers_that_are_not_finite_stay_json(tmp_path):
    with open_record(tmp_path, log_every=1) as record:
        record.train(1, {"loss": math.nan, "grad_norm": math.inf}, data_wait=0.0)
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["loss"] is None


def test_other_processes_write_and_show_nothing(tmp_path):
    stream = io.StringIO()
    with open_record(tmp_path, writer=False, stream=stream) as record:
        train(record, 1, 4)
        record.evaluation(4, {"top1": 0.5})
        record.note("hello")
        record.draw()
    assert list(tmp_path.iterdir()) == []
    assert stream.getvalue() == ""


def crc32c(data):
    """Bit by bit, from the polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(path):
    """The events of a file, their checksums verified."""
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12]) == (masked(data[:8]),)
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked(body),)
        events.append(Event.FromString(body))
        data = data[16 + length :]
    return events


def test_tensorboard_events(tmp_path):
    with open_record(tmp_path) as record:
        train(record, 1, 2)
        record.evaluation(2, {"top1": 0.25})
    with open_record(tmp_path, start_step=2) as record:
        train(record, 3, 4)
    files = sorted(tmp_path.glob("events.out.tfevents.*"))
    assert len(files) == 2, "each life of a run has a file of its own"
    first, second = (read_events(path) for path in files)
    assert first[0].file_version == "brain.Event:2"
    scalars = {
        (event.step, value.tag): value.simple_value
        for event in first + second
        for value in event.summary.value
    }
    assert scalars[2, "loss"] == 0.5
    assert scalars[2, "eval/top1"] == 0.25
    assert scalars[4, "loss"] == 0.25
    # What TensorBoard has to forget: everything of the former life from step 3 on.
    starts = [event for event in second if event.session_log.status == SessionLog.START]
    assert [event.step for event in starts] == [3]


def test_evaluation_draws_the_curves(tmp_path):
    stream = io.StringIO()
    with open_record(tmp_path, stream=stream) as record:
        train(record, 1, 4)
        record.evaluation(4, {"top1": 0.5, "loss": 1.25})
    assert values(tmp_path, "eval/top1", "eval/loss")[-1] == (4, 0.5, 1.25)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 800
    assert "evaluation after step 4: top1 0.5, loss 1.25" in stream.getvalue()


def test_plain_lines_where_there_is_no_terminal(tmp_path):
    stream = io.StringIO()
    with open_record(tmp_path, stream=stream, log_every=5) as record:
        train(record, 1, 10)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 5/10 (50%)", "step 10/10 (100%)"]
    for word in ("loss 0.1", "lr 0.001", "images/s", "s/step", "data wait 0%", "ETA 0 s", "memory"):
        assert word in lines[-1]


def test_a_bar_on_a_terminal(tmp_path):
    stream = io.StringIO()
    with open_record(tmp_path, stream=stream, terminal=True, start_step=2) as record:
        train(record, 3, 10)
        record.note("a message")
    shown = stream.getvalue()
    assert "10/10" in shown
    assert "loss 0.1" in shown
    assert "a message\n" in shown
    assert "step 10/10" not in shown, "the bar itself says how far it is"


def test_clock_leaves_out_compilation_and_evaluation(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def pass_time(seconds):
        now[0] += seconds

    clock = Clock(start_step=20, batch_size=8)
    pass_time(60)  # compiling
    clock.tick(21, data_wait=5.0)
    assert clock.speed() == {}
    assert clock.eta(100) is None
    for step in (22, 23):
        pass_time(2)
        clock.tick(step, data_wait=0.5)
    assert clock.speed() == {"images_per_second": 4.0, "step_seconds": 2.0, "data_wait": 0.25}
    pass_time(30)  # an evaluation
    clock.pause()
    pass_time(4)
    clock.tick(24, data_wait=0.0)
    assert clock.speed() == {"images_per_second": 2.0, "step_seconds": 4.0, "data_wait": 0.0}
    assert clock.speed() == {}
    # 38 seconds for the three steps since the first: the evaluations to come are counted in.
    assert clock.eta(30) == pytest.approx(38 / 3 * 6)


def test_evaluations_do_not_slow_the_recorded_speed(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    with open_record(tmp_path, log_every=1) as record:
        for step in (1, 2, 3):
            now[0] += 2
            record.train(step, {}, data_wait=1.0)
            now[0] += 50
            record.evaluation(step, {"top1": 0.5})
    speeds = [line for line in values(tmp_path, "images_per_second", "data_wait") if line[1]]
    assert speeds == [(2, 4.0, 0.5), (3, 4.0, 0.5)]


def test_curves_are_drawn_from_lines_that_a_store_has_not_got_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "is_remote", lambda path: True)
    drawn = []
    curves = record_module.pictures.curves
    monkeypatch.setattr(
        record_module.pictures,
        "curves",
        lambda lines, **options: drawn.append(lines) or curves(lines, **options),
    )
    with open_record(tmp_path) as record:
        train(record, 1, 10)
        record.draw()
    assert [line["step"] for line in drawn[0]] == [2, 4, 6, 8, 10]


def test_progress_line_and_durations():
    line = progress_line(
        1200,
        3000,
        {"loss": 0.61234, "images_per_second": 531.2, "step_seconds": 0.24, "data_wait": 0.031},
        9725.0,
    )
    assert line == (
        "step 1200/3000 (40%)  loss 0.6123  531 images/s  ETA 2 h 42 min  data wait 3%  0.24 s/step"
    )
    assert [duration(s) for s in (0, 59.4, 59.6, 185, 3599.7, 7620)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "3 min 05 s",
        "1 h 00 min",
        "2 h 07 min",
    ]


def test_memory_is_the_devices_where_they_tell(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    devices = [Device({"peak_bytes_in_use": 3 * 2**30}), Device({"peak_bytes_in_use": 2**30}), Device(None)]
    monkeypatch.setattr(record_module.jax, "local_devices", lambda: devices)
    assert record_module.memory() == {"device_memory_gib": 3.0}
    monkeypatch.setattr(record_module.jax, "local_devices", lambda: [Device(None)])
    ((name, size),) = record_module.memory().items()
    assert name == "host_memory_gib"
    assert 0.02 < size < 500


def test_a_file_in_the_directorys_place(tmp_path):
    place = tmp_path / "run"
    place.write_text("not a directory")
    with pytest.raises(RunDirectoryError, match=r"cannot \w+ .*run.*(Not a directory|File exists)"):
        open_record(place)
    with pytest.raises(RunDirectoryError, match=r"cannot \w+ .*run.*(Not a directory|File exists)"):
        write_config(place, {}, {})
    assert place.read_text() == "not a directory"


# A file-size limit stands for a full disk: writes beyond it fail or are cut short.
FULL_DISK = """
import io, resource, sys
from swin_jax.training.record import Record
from swin_jax.training.run_directory import GrowingFile, RunDirectoryError, write_atomically
workdir, limit = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    record = Record(workdir, start_step=6, total_steps=100, batch_size=8, log_every=1, stream=io.StringIO())
    for step in range(7, 101):
        record.train(step, {"loss": 0.5}, data_wait=0.0)
except RunDirectoryError as error:
    print(error)
grows = GrowingFile(workdir + "/grows", keep=False)
try:
    while True:
        grows.append(b"0123456789")
except RunDirectoryError as error:
    print(error)
try:
    write_atomically(workdir + "/big", bytes(2 * limit))
except RunDirectoryError as error:
    print(error)
"""


def test_a_full_disk_is_one_sentence_and_loses_no_line(tmp_path):
    with open_record(tmp_path, log_every=1) as record:
        train(record, 1, 6)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "big").write_bytes(b"old")
    limit = len(before) + 703
    code = textwrap.dedent(FULL_DISK)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(limit)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    sentences = done.stdout.splitlines()
    assert len(sentences) == 3
    assert all("cannot write" in sentence and str(tmp_path) in sentence for sentence in sentences)
    after = (tmp_path / "metrics.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after) > len(before), "lines that fitted are kept"
    assert after.endswith(b"}\n"), "no half line is left"
    # What still fitted of the last piece was taken back.
    assert (tmp_path / "grows").read_bytes() == b"0123456789" * (limit // 10)
    assert (tmp_path / "big").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*")), "no partial file is left"
    # The run directory can be resumed as it is.
    with open_record(tmp_path, start_step=6) as record:
        train(record, 7, 8)
    assert [step for (step,) in values(tmp_path)] == [1, 2, 3, 4, 5, 6, 8]


def test_rewinding_on_a_full_disk_keeps_the_former_lines(tmp_path, monkeypatch):
    with open_record(tmp_path) as record:
        train(record, 1, 6)
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_directory.os, "fsync", full)
    with pytest.raises(RunDirectoryError, match=r"cannot write .*metrics.jsonl: No space left on device"):
        open_record(tmp_path, start_step=2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_object_stores_get_whole_files_now_and_then(tmp_path, monkeypatch):
    # A local path in an object store's place: appending is what such a store cannot do.
    monkeypatch.setattr(run_directory, "is_remote", lambda path: True)
    path = tmp_path / "grows"
    path.write_bytes(b"old ")
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    file = GrowingFile(path, keep=True)
    file.append(b"one ")
    file.append(b"two ")
    assert path.read_bytes() == b"old one "
    clock[0] += run_directory.REMOTE_INTERVAL
    file.append(b"three ")
    assert path.read_bytes() == b"old one two three "
    file.append(b"four")
    file.close()
    assert path.read_bytes() == b"old one two three four"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


CONFIG = {"seed": 0, "model": {"name": "swin_tiny", "depths": (2, 2, 6, 2)}, "data": {"workers": 4}}


def test_config_goes_round_and_is_compared_as_it_is_read_back(tmp_path):
    assert read_config(tmp_path) is None
    write_config(tmp_path, CONFIG, {"versions": library_versions()})
    assert differences(read_config(tmp_path), CONFIG) == []
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["versions"]["numpy"] == np.__version__
    assert document["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))


def test_differences_are_named_with_dots():
    new = {"seed": 1, "model": {"name": "swin_tiny", "depths": [2, 2], "head": {}}, "data": {}}
    assert differences(CONFIG, new) == [
        "data: absent -> {}",
        "data.workers: 4 -> absent",
        "model.depths: [2, 2, 6, 2] -> [2, 2]",
        "model.head: absent -> {}",
        "seed: 0 -> 1",
    ]
    assert differences({"a": 1}, {"a": True}) == ["a: 1 -> true"]


def test_a_directory_belongs_to_one_config(tmp_path):
    assert not claim(tmp_path, CONFIG, {}, free=("data",))
    assert claim(tmp_path, CONFIG, {}, free=("data",))
    # Workers may change between lives, and the newest is remembered.
    assert claim(tmp_path, CONFIG | {"data": {"workers": 8}}, {}, free=("data",))
    assert read_config(tmp_path)["data"] == {"workers": 8}
    before = (tmp_path / "config.json").read_bytes()
    other = CONFIG | {"seed": 7, "model": {"name": "swin_base", "depths": (2, 2, 6, 2)}}
    with pytest.raises(ValueError, match=r'model.name: "swin_tiny" -> "swin_base"; seed: 0 -> 7 ') as caught:
        claim(tmp_path, other, {}, free=("data",))
    assert "data.workers" not in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == before
    with pytest.raises(ValueError, match="database"):
        claim(tmp_path, CONFIG | {"database": 1}, {}, free=("data",))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"versions": {}}', '{"config": 3}'])
def test_a_foreign_config_file_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json is not a run's config"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": {"dtype": np.float32}}, r"field model.dtype is <class 'numpy.float32'> of type type"),
        ({"a": [1, {"b": np.arange(2)}]}, r"field a\[1\].b is array\(\[0, 1\]\)"),
        ({"a": {3: 4}}, "field a has the key 3"),
    ],
)
def test_values_that_are_not_json_are_named(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        write_config(tmp_path, config, {})
    assert not os.listdir(tmp_path)
