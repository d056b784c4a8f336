"""Masks on the host, in numpy: from a mask head's P x P probabilities to pictures and run lengths."""

import numpy as np
from jaxtyping import Bool, Float

RunLengths = dict[str, object]
"""What COCO calls a compressed RLE: `{"size": [height, width], "counts": bytes}`."""


def paste(
    probabilities: Float[np.ndarray, "rows columns"],
    box: Float[np.ndarray, "4"],
    height: int,
    width: int,
    *,
    threshold: float = 0.5,
) -> Bool[np.ndarray, "height width"]:
    """The instance in a picture of `height` x `width` pixels: True where its mask, spread over its box, reaches
    `threshold`.

    Every pixel centre reads the mask linearly between cell centres, and zeros around the mask, which so reaches half a
    cell out of its box. An empty box gives an empty mask.
    """
    mask = np.zeros((height, width), bool)
    x1, y1, x2, y2 = (float(value) for value in box)
    if x2 <= x1 or y2 <= y1:
        return mask
    rows, first_row = _line(y1, y2, probabilities.shape[0], height)
    columns, first_column = _line(x1, x2, probabilities.shape[1], width)
    part = rows @ probabilities.astype(np.float32) @ columns.T >= threshold
    mask[first_row : first_row + len(rows), first_column : first_column + len(columns)] = part
    return mask


def encode(mask: Bool[np.ndarray, "height width"]) -> RunLengths:
    """Run lengths of a mask, column by column, as pycocotools writes them: the same bytes."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]]))
    if flat.size and flat[0]:
        runs = np.concatenate([[0], runs])  # runs begin with background
    return {"size": list(mask.shape), "counts": _compressed(runs)}


def decode(runs: RunLengths) -> Bool[np.ndarray, "height width"]:
    """The mask of run lengths, compressed (bytes or str) or a plain list of counts.

    Raises:
      ValueError: if the runs do not add up to the size.
    """
    height, width = runs["size"]  # type: ignore[misc]
    counts = runs["counts"]
    lengths = np.asarray(counts if isinstance(counts, list) else _decompressed(counts), np.int64)  # type: ignore[arg-type]
    if lengths.sum() != height * width:
        raise ValueError(f"run lengths of {lengths.sum()} pixels do not fill a mask of {height}x{width}")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape((height, width), order="F")


def _line(low: float, high: float, cells: int, length: int) -> tuple[Float[np.ndarray, "pixels cells"], int]:
    """Weights of the mask's cells for the pixels that can see them, and the first of those pixels."""
    reach = 0.5 * (high - low) / cells
    first = int(np.clip(np.floor(low - reach), 0, length))
    last = int(np.clip(np.ceil(high + reach), first, length))
    place = (np.arange(first, last, dtype=np.float32) + np.float32(0.5) - np.float32(low)) * np.float32(
        cells / (high - low)
    ) - np.float32(0.5)
    distance = np.abs(place[:, None] - np.arange(cells, dtype=np.float32)[None, :])
    return np.maximum(np.float32(1) - distance, np.float32(0)), first


def _compressed(runs: np.ndarray) -> bytes:
    """COCO's text form: from the third run on the difference to the run two before; five bits a character from the
    lowest, the sixth bit says that more follow, plus 48."""
    text = bytearray()
    for place, run in enumerate(runs.tolist()):
        value = run - int(runs[place - 2]) if place > 2 else run
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text.append((bits | 32 if more else bits) + 48)
    return bytes(text)


def _decompressed(text: bytes | str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs
