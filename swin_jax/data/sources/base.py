"""What every source of examples offers."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

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
