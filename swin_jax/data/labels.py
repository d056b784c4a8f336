"""Label maps: how a data set stores the class of every pixel, and the class numbers that are made of it."""

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from swin_jax.data.decode import DAMAGED, TOO_LARGE, UnreadablePicture

IGNORE = 255
"""The class number of a pixel that counts nowhere: not in the loss, not in the gradient, not in the score."""
MOST_CLASSES = IGNORE
IGNORED_NAMES = ("ignore", "ignored", "void", "unlabeled", "unlabelled")
FORMATS = ("PNG", "BMP", "TIFF", "PPM", "GIF")  # those that keep values as they are
NOT_KNOWN = 256  # in a table of values: no class, and not ignored either
WRITTEN = 200  # characters of an error's list

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class LabelCoding:
    """What the values of a data set's label files mean.

    Attributes:
      class_names: in the order of the class numbers.
      palette: RGB of each class, for pictures.
      values: of each class in label files with one channel.
      ignored: values of such files that mean `IGNORE`, as 255 always does.
      rest_ignored: whether every other value means it too (Cityscapes), instead of being an error.
      colours: RGB -> class number, or `IGNORE`, in label files with three channels; empty where they may not be.
    """

    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...] = ()
    rest_ignored: bool = False
    colours: tuple[tuple[Colour, int], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.class_names)
        if not 1 <= count <= MOST_CLASSES:
            raise ValueError(f"the data set has {count} classes; expected 1 to {MOST_CLASSES}")
        if len(set(self.class_names)) != count:
            twice = next(name for name in self.class_names if self.class_names.count(name) > 1)
            raise ValueError(f"the class {twice!r} is listed twice; give every class a name of its own")
        if not len(self.palette) == len(self.values) == count:
            raise ValueError(
                f"{count} classes have {len(self.palette)} colours and {len(self.values)} values; expected one of each"
            )

    def decode(self, data: bytes | np.ndarray, name: str) -> np.ndarray:
        """Class numbers uint8 [H,W], `IGNORE` where there is none.

        Args:
          data: an encoded label file, or its pixels: integers [H,W], [H,W,1] or uint8 [H,W,3].
          name: of its file or record, for the error.

        Raises:
          UnreadablePicture: it is damaged, or a value has no meaning.
        """
        pixels = data if isinstance(data, np.ndarray) else _pixels(data, name)
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        if pixels.ndim == 3:
            grey = bool((pixels == pixels[..., :1]).all())
            if self.colours or not grey:
                return self._of_colours(pixels, name)
            pixels = pixels[..., 0]
        return self._of_values(pixels, name)

    def encode(self, classes: np.ndarray) -> np.ndarray:
        """The data set's own values, uint8 of the shape of `classes`; `IGNORE` stays 255.

        Raises:
          ValueError: a value does not fit into 8 bits.
        """
        if max(self.values) > 255:
            raise ValueError(f"label values reach {max(self.values)}; 8-bit files hold 255 at most")
        table = np.full(256, IGNORE, np.uint8)
        table[: len(self.values)] = self.values
        return table[classes]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "LabelCoding":
        """The inverse of `to_json`, after JSON made lists of the tuples."""
        return LabelCoding(**{name: _tuples(value) for name, value in values.items()})

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(65536, IGNORE if self.rest_ignored else NOT_KNOWN, np.int32)
        table[list(self.ignored)] = IGNORE
        table[IGNORE] = IGNORE
        table[list(self.values)] = np.arange(len(self.values))
        return table

    def _of_values(self, pixels: np.ndarray, name: str) -> np.ndarray:
        if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
            raise _bad(name, f"it has the value {pixels.min() if pixels.min() < 0 else pixels.max()}")
        classes = self._table[pixels]
        wrong = classes == NOT_KNOWN
        if wrong.any():
            found = sorted({int(value) for value in pixels[wrong]})
            raise _bad(
                name,
                f"it has the value {_list(found)} in {np.count_nonzero(wrong)} of {wrong.size} pixels; the "
                f"{len(self.class_names)} classes have {_list(sorted(self.values))}, and 255 is ignored",
            )
        return classes.astype(np.uint8)

    def _of_colours(self, pixels: np.ndarray, name: str) -> np.ndarray:
        if not self.colours:
            raise _bad(
                name,
                "it has three channels of different values, and the list of classes does not give each a colour of "
                "its own; write 'name, red, green, blue' for each, or store class numbers in one channel",
            )
        codes = pixels[..., :3].astype(np.int32) @ np.array([65536, 256, 1], np.int32)
        known = np.array([(r << 16) + (g << 8) + b for (r, g, b), _ in self.colours], np.int32)
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
        wrong = known[order][place] != codes
        if wrong.any():
            found = [
                tuple(int(value) for value in colour) for colour in np.unique(pixels[wrong][:, :3], axis=0)
            ]
            raise _bad(
                name,
                f"it has the colour {_list(found)} in {np.count_nonzero(wrong)} of {wrong.size} pixels, which the "
                "list of classes does not have",
            )
        return np.array([number for _, number in self.colours], np.uint8)[order][place]


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """The label map of a record, decoded when it is asked for."""

    data: bytes | np.ndarray
    coding: LabelCoding
    name: str

    def classes(self, size: tuple[int, int], picture: str) -> np.ndarray:
        """Class numbers uint8 [*size].

        Raises:
          UnreadablePicture: it is damaged, a value has no meaning, or it has not the size of its picture.
        """
        found = self.coding.decode(self.data, self.name)
        if found.shape != size:
            turned = " (turned by 90 degrees: does the picture's EXIF orientation count?)" * (
                found.shape == size[::-1]
            )
            raise _bad(
                self.name,
                f"it is {found.shape[0]} x {found.shape[1]} pixels and its picture {picture} is {size[0]} x {size[1]}"
                + turned,
            )
        return found


def parse_classes(text: str, where: str) -> LabelCoding:
    """The coding that a list of classes stands for, one class a line in the order of their values from 0.

    A line is "name", or with its colour "name, red, green, blue" or "red green blue name" (CamVid's own file); lines
    that begin with "#", and the heading "name,r,g,b", are no classes. What is called "ignore", "void" or "unlabeled"
    (in any case) has a value and a colour but is no class: its pixels are ignored.

    Raises:
      ValueError: there is no class, or some have colours and others not.
    """
    names: list[str] = []
    colours: list[Colour | None] = []
    for line in text.splitlines():
        if (
            not line.strip()
            or line.lstrip().startswith("#")
            or re.match(r"\s*name\s*,\s*r", line, re.IGNORECASE)
        ):
            continue
        name, colour = _parse_line(line)
        names.append(name)
        colours.append(colour)
    given = [colour for colour in colours if colour is not None]
    without = [
        name for name, colour in zip(names, colours, strict=True) if colour is None and not _is_ignored(name)
    ]
    if given and without:
        raise ValueError(f"{where} gives some classes a colour, but {_list(without)} none; give all or none")
    # Two classes of one colour, as in ADE20K's palette, do no harm to files that hold numbers.
    return _coding(names, colours, by_colour=len(set(given)) == len(given) > 0, where=where)


def _is_ignored(name: str) -> bool:
    return name.lower() in IGNORED_NAMES


def _coding(
    names: Sequence[str], colours: Sequence[Colour | None], *, by_colour: bool, where: str
) -> LabelCoding:
    kept = [index for index, name in enumerate(names) if not _is_ignored(name)]
    if not kept:
        raise ValueError(f"{where} names no class; write one class a line")
    number = {index: place for place, index in enumerate(kept)}
    automatic = default_palette(len(kept))
    palette = [colours[index] or automatic[place] for place, index in enumerate(kept)]
    pairs = [
        (colour, number.get(index, IGNORE)) for index, colour in enumerate(colours) if colour is not None
    ]
    return LabelCoding(
        class_names=tuple(names[index] for index in kept),
        palette=tuple(palette),
        values=tuple(kept),
        ignored=tuple(index for index in range(len(names)) if index not in number),
        colours=tuple(pairs) if by_colour else (),
    )


def _parse_line(line: str) -> tuple[str, Colour | None]:
    before = re.match(r"\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\S.*)$", line)
    after = re.match(r"(.*?\S)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*$", line)
    if before:
        return before[4].strip(), _colour(before[1], before[2], before[3], line)
    if after:
        return after[1].strip(), _colour(after[2], after[3], after[4], line)
    return line.strip(), None


def _colour(red: str, green: str, blue: str, line: str) -> Colour:
    colour = int(red), int(green), int(blue)
    if max(colour) > 255:
        raise ValueError(f"the class line {line.strip()!r} has a colour beyond 255")
    return colour


def default_palette(count: int) -> tuple[Colour, ...]:
    """Colours that are far apart, the same for every run: the bit-interleaved ones of PASCAL VOC, without its black."""

    def colour(number: int) -> Colour:
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (number >> channel & 1) << (7 - bit)
            number >>= 3
        return channels[0], channels[1], channels[2]

    return tuple(colour(number) for number in range(1, count + 1))


def _pixels(data: bytes, name: str) -> np.ndarray:
    """What a label file stores: the indices of a palette file, not their colours."""
    if not data:
        raise _bad(name, "it is empty")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format not in FORMATS:
                raise _bad(
                    name, f"a {picture.format} file does not keep values as they are; store labels as PNG"
                )
            picture.load()
            if picture.mode in ("L", "P", "I", "I;16", "RGB"):
                return np.asarray(picture)
            if picture.mode == "1":
                return np.asarray(picture).astype(np.uint8)
            if picture.mode in ("RGBA", "LA", "PA"):
                pixels = np.asarray(picture)
                return pixels[..., :3] if picture.mode == "RGBA" else pixels[..., 0]
            raise _bad(name, f"its pixels are of the kind {picture.mode}; store class numbers in one channel")
    except Image.UnidentifiedImageError as error:
        raise _bad(name, "it is not in a known picture format") from error
    except UnreadablePicture:
        raise
    except (*DAMAGED, *TOO_LARGE) as error:
        raise _bad(name, " ".join(str(error).split()) or type(error).__name__) from error


def _bad(name: str, reason: str) -> UnreadablePicture:
    return UnreadablePicture(name, reason, what="a label map")


def _list(values: Sequence[Any]) -> str:
    """The values as text, a whole range shortened."""
    if (
        len(values) > 2
        and all(isinstance(value, int) for value in values)
        and values[-1] - values[0] == len(values) - 1
    ):
        return f"{values[0]} to {values[-1]}"
    text = ", ".join(str(value) for value in values)
    return text if len(text) <= WRITTEN else text[:WRITTEN] + " ..."


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
