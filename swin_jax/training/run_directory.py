"""The small files of a run directory: its config, and text that grows line by line and survives a kill.

Works on local paths and on any URL that epath knows. Object stores cannot append: there a growing file is
kept in memory and written whole, now and then and when it is closed.
"""

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from etils import epath

from swin_jax.training import provenance

log = logging.getLogger(__name__)

CONFIG = "config.json"
METRICS = "metrics.jsonl"
# How often a growing file on an object store is written, in seconds.
REMOTE_INTERVAL = 30.0


class RunDirectoryError(RuntimeError):
    """The run directory could not be written or read. What was complete before is still there."""


@contextmanager
def explaining(action: str, path: epath.PathLike) -> Iterator[None]:
    """Turns an OSError inside into one sentence: what was being done to which path, and what is wrong."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise RunDirectoryError(
            f"cannot {action} {os.fspath(path)}: {reason}; free or repair that place and run the command again"
        ) from error


def absolute(path: epath.PathLike) -> epath.Path:
    """A local path made absolute; a URL as it is."""
    return epath.Path(path) if is_remote(path) else epath.Path(os.path.abspath(path))


def is_remote(path: epath.PathLike) -> bool:
    return "://" in os.fspath(path)


def write_atomically(path: epath.PathLike, data: bytes) -> None:
    """Writes a whole file so that a reader, or a restart after a kill, finds the old one or the new one.

    Raises:
        RunDirectoryError: the place cannot be written; the old file stays.
    """
    path = epath.Path(path)
    with explaining("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_remote(path):
            path.write_bytes(data)  # an object appears when it is complete
            return
        partial = path.with_name(f".{path.name}.partial")
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


class GrowingFile:
    """A file to which pieces are appended. One that does not fit leaves those before it as they were.

    Args:
        path: of the file; its directory is made when missing.
        keep: continue an existing file rather than replacing it.

    Raises:
        RunDirectoryError: the place cannot be written; so do all methods.
    """

    def __init__(self, path: epath.PathLike, *, keep: bool) -> None:
        self.path = epath.Path(path)
        self._remote = is_remote(self.path)
        self._pending = bytearray()
        self._written_at = -math.inf
        with explaining("write", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._remote:
                self._pending += self.path.read_bytes() if keep and self.path.exists() else b""
            else:
                self._file = open(self.path, "ab" if keep else "wb", buffering=0)  # noqa: SIM115

    def append(self, piece: bytes) -> None:
        with explaining("write", self.path):
            if self._remote:
                self._pending += piece
                if time.monotonic() - self._written_at >= REMOTE_INTERVAL:
                    self._write_remote()
                return
            before = os.fstat(self._file.fileno()).st_size
            try:
                if self._file.write(piece) != len(piece):
                    # A full disk takes what still fits and reports nothing.
                    raise OSError(None, "no space left for the whole piece")
            except OSError:
                os.ftruncate(self._file.fileno(), before)
                raise

    def flush(self) -> None:
        """Returns when a reader would find all pieces."""
        with explaining("write", self.path):
            if self._remote:
                self._write_remote()

    def close(self) -> None:
        self.flush()
        with explaining("write", self.path):
            if not (self._remote or self._file.closed):
                os.fsync(self._file.fileno())
                self._file.close()

    def _write_remote(self) -> None:
        self.path.write_bytes(bytes(self._pending))
        self._written_at = time.monotonic()


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, oldest first; none if there is no such file.

    A last line that a kill left half-written is not one.

    Raises:
        ValueError: another line is damaged; it is named.
        RunDirectoryError: the file cannot be read.
    """
    path = epath.Path(workdir) / METRICS
    with explaining("read", path):
        text = path.read_bytes() if path.exists() else b""
    lines = text.split(b"\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"line {number} of {path} is damaged: expected a JSON object with a step, got {line[:60]!r}; "
                "remove that line"
            ) from error
        records.append(record)
    return records


def metrics_line(record: Mapping[str, Any]) -> bytes:
    """One line of `metrics.jsonl`. Numbers that are not finite become null: JSON has none."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(plain, allow_nan=False).encode() + b"\n"


def rewind_metrics(workdir: epath.PathLike, step: int) -> None:
    """Drops what a former life of the run recorded after `step`, and a half-written last line.

    At step 0 everything is dropped: the run begins anew, with its evaluation before the first update.

    Raises:
        ValueError, RunDirectoryError: as `read_metrics`; the file stays as it was.
    """
    path = epath.Path(workdir) / METRICS
    kept = [record for record in read_metrics(workdir) if step and record["step"] <= step]
    with explaining("read", path):
        old = path.read_bytes() if path.exists() else b""
    new = b"".join(metrics_line(record) for record in kept)
    if new != old:
        write_atomically(path, new)


def write_config(workdir: epath.PathLike, resolved: Mapping[str, Any], made_by: Mapping[str, Any]) -> None:
    """Writes `config.json`: the resolved config beside what made the run, as `provenance.provenance` has it.

    Raises:
        ValueError: a value is not JSON; its dotted name is given.
        RunDirectoryError: the place cannot be written.
    """
    _check_json(resolved, "")
    document = {"config": resolved, **made_by}
    write_atomically(epath.Path(workdir) / CONFIG, json.dumps(document, indent=2).encode() + b"\n")


def read_config(workdir: epath.PathLike) -> dict[str, Any] | None:
    """The resolved config of the run in `workdir`, None if there is none.

    Raises:
        ValueError: `config.json` is there but not one of ours.
        RunDirectoryError: it cannot be read.
    """
    document = read_document(workdir)
    return None if document is None else document["config"]


def read_document(workdir: epath.PathLike) -> dict[str, Any] | None:
    """All of `config.json`: `config`, and what made the run. None and errors as `read_config`."""
    path = epath.Path(workdir) / CONFIG
    with explaining("read", path):
        if not path.exists():
            return None
        text = path.read_bytes()
    try:
        document = json.loads(text)
        return document | {"config": dict(document["config"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a run's config (expected a JSON object with the key 'config'); restore the file "
            "or name another --workdir"
        ) from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Each field in which two configs differ, as "dotted.name: old -> new", in the order of the names.

    Both count as they would be read back from `config.json`: a tuple equals a list.
    """
    before, after = _flat(old), _flat(new)
    return [
        f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def claim(
    workdir: epath.PathLike,
    resolved: Mapping[str, Any],
    made_by: Mapping[str, Any],
    *,
    free: Sequence[str] = (),
) -> bool:
    """Makes `workdir` the directory of this config's run; True when it already was.

    A run that goes on with other code or libraries is warned about: it may not be the run it would have been.
    `config.json` has what runs now, and under "before" what ran in former lives, the oldest first.

    Args:
        workdir: the run directory.
        resolved: the config.
        made_by: as `provenance.provenance` gives it.
        free: dotted names (or the part before a dot) that may change between the lives of a run, such as the
            number of workers or the mesh; the newest is kept in `config.json`.

    Raises:
        ValueError: the directory belongs to another config (all differing fields are named), or to a run of a
            version with other fields.
        RunDirectoryError: the place cannot be written.
    """
    before = read_document(workdir)
    if before is None:
        write_config(workdir, resolved, made_by)
        return False
    found = differences(before["config"], resolved)
    bound = [difference for difference in found if not is_free(difference, free)]
    unknown = [
        difference
        for difference in bound
        if ": absent -> " in difference or difference.endswith(" -> absent")
    ]
    if unknown:
        raise ValueError(
            f"{os.fspath(workdir)} holds a run of another version of swin_jax "
            f"({provenance.describe(before.get('code', {}))}), with other fields: {'; '.join(unknown)} (there -> "
            "here); evaluate and predict read it; to train it further take that version, else name a new --workdir"
        )
    if bound:
        raise ValueError(
            f"{os.fspath(workdir)} holds a run of another config: {'; '.join(bound)} (there -> asked for); "
            "name a new --workdir, or ask for the config of that run"
        )
    other = provenance.changes(before, made_by)
    if other:
        log.warning("this run was begun by other software: %s; its numbers may differ", "; ".join(other))
    if found or other:
        former = {name: before[name] for name in made_by if name in before}
        lives = [*before.get("before", []), *([former] if other else [])]
        write_config(workdir, resolved, {**made_by, **({"before": lives} if lives else {})})
    return True


def is_free(difference: str, free: Sequence[str]) -> bool:
    """Whether one of `differences` is of a field, or below a section, named in `free`."""
    name = difference.split(":", 1)[0]
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in free)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted name -> value as JSON text."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{name}.")
        else:
            found[name] = json.dumps(value, default=repr)
    return found


def _check_json(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(
                    f"config field {name or 'at the top'} has the key {key!r}; keys must be text"
                )
            _check_json(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, f"{name}[{index}]")
    elif not (value is None or isinstance(value, str | bool | int | float)):
        raise ValueError(
            f"config field {name} is {value!r} of type {type(value).__name__}; expected text, a number, "
            "a truth value, None, or a list or dictionary of these"
        )
