"""Encoded pictures to RGB arrays, of every kind that people's data sets hold."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

JPEG, PNG = ("JPEG", "MPO"), ("PNG",)
FORMATS = ("JPEG", *PNG, "WEBP", "BMP", "GIF", "TIFF", "PPM")
UPRIGHT = 1
# EXIF 2.3, orientation tag: what sets a picture [H,W,C] upright.
SET_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}
# Pillow looks for a resolution in the EXIF block of many photographs; a damaged block does not concern us.
warnings.filterwarnings("ignore", "(Possibly )?[Cc]orrupt EXIF data", UserWarning)
ORIENTATION_TAG, SHORT = 0x0112, 3
# What Pillow raises for damaged or hostile files; anything else is a mistake of ours and must be seen.
DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    struct.error,
    zlib.error,
    cv2.error,
)
TOO_LARGE = (Image.DecompressionBombError, MemoryError, OverflowError)

# Pillow fills its table of formats on first use, which several threads doing so at once find half filled.
Image.init()


class UnreadablePicture(ValueError):
    """A picture, or what belongs to it, that cannot be read or decoded.

    Attributes:
      name: of the file or record.
      reason: in words.
      what: it should have been.
    """

    def __init__(self, name: str, reason: str, what: str = "a picture"):
        super().__init__(name, reason, what)  # all in `args`, so that it crosses process boundaries
        self.name = name
        self.reason = reason
        self.what = what

    def __str__(self) -> str:
        return f"{self.name} cannot be read as {self.what}: {self.reason}"


def decode_picture(data: bytes | np.ndarray, name: str) -> np.ndarray:
    """The picture as uint8 [H,W,3] RGB, upright as its EXIF orientation asks.

    Pixels equal Pillow's `convert("RGB")`, which the published preprocessing uses: an alpha channel is dropped,
    CMYK and YCCK are converted without colour profile. Beyond it, orientation is applied (the published loader
    ignores it) and 16-bit grey is scaled to 8 bit (Pillow's conversion clips it to white).

    Args:
      data: an encoded picture, or one already decoded: uint8 [H,W], [H,W,1], [H,W,3] or [H,W,4].
      name: of its file or record, for the error.

    Raises:
      UnreadablePicture: it is truncated, damaged, or no picture.
    """
    if isinstance(data, np.ndarray):
        return _from_array(data, name)
    if not data:
        raise UnreadablePicture(name, "it is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            pixels = _decode_fast(data, picture)
            if pixels is None:
                pixels = _decode_any(picture)
            # Pillow itself turns TIFF.
            orientation = (
                UPRIGHT if picture.format == "TIFF" else exif_orientation(picture.info.get("exif", b""))
            )
            return (
                np.ascontiguousarray(SET_UPRIGHT[orientation](pixels)) if orientation != UPRIGHT else pixels
            )
    except Image.UnidentifiedImageError as error:
        raise UnreadablePicture(name, "it is not in a known picture format") from error
    except DAMAGED as error:
        raise UnreadablePicture(name, " ".join(str(error).split()) or type(error).__name__) from error
    except TOO_LARGE as error:
        raise UnreadablePicture(name, f"it is too large ({error})") from error


def picture_size(data: bytes | np.ndarray, name: str) -> tuple[int, int]:
    """(height, width) of what `decode_picture` would give, from the file's header alone.

    Raises:
      UnreadablePicture: there is no such header.
    """
    if isinstance(data, np.ndarray):
        return int(data.shape[0]), int(data.shape[1])
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            turned = picture.format != "TIFF" and exif_orientation(picture.info.get("exif", b"")) > 4
            if picture.format == "TIFF":  # Pillow turns it when it loads
                width, height = decode_picture(data, name).shape[1::-1]
            return (width, height) if turned else (height, width)
    except (*DAMAGED, *TOO_LARGE) as error:
        raise UnreadablePicture(name, " ".join(str(error).split()) or type(error).__name__) from error


def _decode_fast(data: bytes, picture: Image.Image) -> np.ndarray | None:
    """By OpenCV, 1.5 times as fast, where its pixels are known to equal Pillow's; else None.

    OpenCV fills what is missing of a truncated file with grey and says nothing, so only files with their end
    mark are given to it; Pillow judges the others.
    """
    if picture.format in JPEG:
        plain = picture.mode in ("RGB", "L") and data.endswith(b"\xff\xd9")
    else:
        plain = picture.format in PNG and picture.mode in ("RGB", "L") and b"IEND" in data[-12:]
        plain = plain and data[24] == 8  # bits of a channel, in the header chunk
    if not plain or "transparency" in picture.info:
        return None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if decoded is None else np.asarray(decoded, np.uint8)


def _decode_any(picture: Image.Image) -> np.ndarray:
    """By Pillow."""
    picture.load()
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return _from_16_bit(picture)
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # straight to RGB warns about transparent palette entries
    elif picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    return np.asarray(picture.convert("RGB"))


def _from_16_bit(picture: Image.Image) -> np.ndarray:
    grey = np.asarray(picture).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("its pixels have 32 bits")
    return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=-1)


def exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block; 1 where there is none or the block is damaged.

    Pillow's parser warns about damaged blocks, which many photographs have.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return UPRIGHT
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return UPRIGHT
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == ORIENTATION_TAG and kind == SHORT:
            return value if value in SET_UPRIGHT else UPRIGHT
    return UPRIGHT


def _from_array(picture: np.ndarray, name: str) -> np.ndarray:
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] not in (1, 3, 4):
        raise UnreadablePicture(
            name, f"expected uint8 [height, width, 1, 3 or 4], got {picture.dtype} {list(picture.shape)}"
        )
    if picture.shape[-1] == 1:
        return np.repeat(picture, 3, axis=-1)
    return np.ascontiguousarray(picture[..., :3])
