"""What every source of examples offers."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

Record = dict[str, Any]


@runtime_checkable
class Source(Protocol):
    """Random access to the examples of one split; picklable, and safe to read from several threads.

    A record is a dict with at least
      image: encoded bytes, or uint8 [H,W,C];
      label: int in [0, len(class_names)), or -1 where it is not known;
      name: of the file or record, for messages;
    and, where a picture may have several right labels, of which `label` is one,
      accepted: bool [len(class_names)], which those are.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def identity(self) -> str:
        """Kind, name of the root, split and size, short and the same on every machine."""
        ...

    @property
    def fingerprint(self) -> str:
        """A `digest` of names, labels and sizes, the same on every machine that has the same examples in the
        same order; cheap, so of the pictures themselves only a sample is looked at, if any."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Raises UnreadablePicture where the record cannot be read."""
        ...


def check_labels(labels: Sequence[int], num_classes: int, where: str) -> None:
    """Raises ValueError unless all labels are in [-1, num_classes)."""
    if min(labels, default=0) < -1 or max(labels, default=0) >= num_classes:
        raise ValueError(
            f"{where} has labels from {min(labels)} to {max(labels)}, expected 0 to {num_classes - 1} "
            "(-1: not known); prepare the data again"
        )


def digest(*parts: str | bytes | Sequence[str] | np.ndarray) -> str:
    """32 hexadecimal digits that tell sequences of parts apart, whatever they look like joined."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            data = np.ascontiguousarray(part, part.dtype.newbyteorder("<")).tobytes()
        elif isinstance(part, bytes):
            data = part
        else:
            data = repr(part if isinstance(part, str) else list(part)).encode()
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()


def spread(count: int, total: int) -> list[int]:
    """At most `count` indices, evenly spread over `total` examples, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)).tolist()
