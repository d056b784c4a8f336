"""Pictures of every kind decode to the pixels of Pillow's RGB conversion, upright; damaged ones are named."""

import io
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from swin_jax.data.decode import UnreadablePicture, decode_picture

HEIGHT, WIDTH = 37, 52
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Smooth, so that lossy formats keep it, and without any symmetry."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([4 * x, 6 * y, 255 - 2 * x - 3 * y], axis=-1).clip(0, 255).astype(np.uint8)


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def with_adobe_transform(jpeg: bytes, transform: int) -> bytes:
    """The same file with another colour transform in its Adobe segment: 0 is CMYK, 2 is YCCK."""
    at = jpeg.index(b"Adobe") + 11
    return jpeg[:at] + bytes([transform]) + jpeg[at + 1 :]


KINDS = {
    "jpeg": lambda p: encoded(p, "JPEG", quality=90),
    "jpeg, full colour resolution": lambda p: encoded(p, "JPEG", quality=95, subsampling=0),
    "jpeg, progressive": lambda p: encoded(p, "JPEG", progressive=True),
    "jpeg, stored as RGB": lambda p: encoded(p, "JPEG", keep_rgb=True),
    "jpeg, grey": lambda p: encoded(p.convert("L"), "JPEG"),
    "jpeg, CMYK": lambda p: with_adobe_transform(encoded(p.convert("CMYK"), "JPEG"), 0),
    "jpeg, YCCK": lambda p: with_adobe_transform(encoded(p.convert("CMYK"), "JPEG"), 2),
    "jpeg, bytes after its end": lambda p: encoded(p, "JPEG") + b"\0\n--",
    "png": lambda p: encoded(p, "PNG"),
    "png, interlaced grey": lambda p: encoded(p.convert("L"), "PNG"),
    "png, alpha": lambda p: encoded(fading(p), "PNG"),
    "png, grey with alpha": lambda p: encoded(fading(p).convert("LA"), "PNG"),
    "png, one grey transparent": lambda p: encoded(p.convert("L"), "PNG", transparency=100),
    "png, one colour transparent": lambda p: encoded(p, "PNG", transparency=(4, 6, 250)),
    "png, palette": lambda p: encoded(p.quantize(32), "PNG"),
    "png, palette of two": lambda p: encoded(p.convert("1"), "PNG"),
    "webp": lambda p: encoded(p, "WEBP"),
    "webp, lossless with alpha": lambda p: encoded(fading(p), "WEBP", lossless=True, exact=True),
    "bmp": lambda p: encoded(p, "BMP"),
    "gif": lambda p: encoded(p, "GIF"),
    "tiff": lambda p: encoded(p, "TIFF"),
}


def fading(picture: Image.Image) -> Image.Image:
    """With an alpha channel from transparent to opaque."""
    faded = picture.convert("RGBA")
    faded.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))))
    return faded


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_pillows_rgb_conversion(kind, scene):
    data = KINDS[kind](Image.fromarray(scene))
    decoded = decode_picture(data, "p")
    assert decoded.dtype == np.uint8
    assert decoded.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(decoded, by_pillow(data))


def test_colours_come_out_in_order(scene):
    decoded = decode_picture(encoded(Image.fromarray(scene), "JPEG", quality=95, subsampling=0), "p")
    assert np.abs(decoded.astype(int) - scene).max() <= 8


def test_transparent_palette_gives_the_palettes_colours_without_a_warning(scene):
    indexed = Image.fromarray(scene).quantize(16)
    data = encoded(indexed, "PNG", transparency=bytes(range(0, 160, 10)))
    np.testing.assert_array_equal(decode_picture(data, "p"), np.asarray(indexed.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_range(form):
    ramp = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    decoded = decode_picture(encoded(Image.fromarray(ramp.astype(np.uint16)), form), "p")
    assert decoded.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(decoded, np.repeat(ramp[..., None] / 257, 3, axis=-1), atol=0.51)


# EXIF 2.3, table 6: the transform that sets a picture with this tag upright.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(form, orientation, scene):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(Image.fromarray(scene), form, exif=exif)
    np.testing.assert_array_equal(decode_picture(data, "p"), UPRIGHT[orientation](by_pillow(data)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # pytest undoes the filter that decode sets
def test_exif_in_either_byte_order_and_damaged_exif(order, scene):
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    directory = struct.pack(order + "HHHIHHHHIHH", 2, 0x0100, 3, 1, 52, 0, ORIENTATION, 3, 1, 6, 0)
    exif = b"Exif\0\0" + mark + struct.pack(order + "I", 8) + directory + bytes(4)
    upright = Image.fromarray(scene)
    data = encoded(upright, "JPEG", exif=exif)
    np.testing.assert_array_equal(decode_picture(data, "p"), UPRIGHT[6](by_pillow(data)))
    for length in range(6, len(exif) - 5):
        data = encoded(upright, "JPEG", exif=exif[:length])
        assert decode_picture(data, "p").shape in [(HEIGHT, WIDTH, 3), (WIDTH, HEIGHT, 3)]
    data = encoded(upright, "JPEG", exif=exif[:10] + bytes([255] * 20))
    np.testing.assert_array_equal(decode_picture(data, "p"), by_pillow(encoded(upright, "JPEG")))


@pytest.mark.parametrize("kind", ["jpeg", "jpeg, progressive", "jpeg, CMYK", "png", "png, palette", "webp"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.97])
def test_truncated_picture_is_named(kind, kept):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    data = KINDS[kind](Image.fromarray(noise))
    with pytest.raises(UnreadablePicture, match=r"^holiday/a\.jpg cannot be read as a picture: ") as caught:
        decode_picture(data[: int(kept * len(data))], "holiday/a.jpg")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "it is empty"), (b"<html>not found</html>", "not in a known picture format")]
)
def test_what_is_no_picture_is_named(data, reason):
    with pytest.raises(UnreadablePicture, match=f"^record 7 cannot be read as a picture: .*{reason}"):
        decode_picture(data, "record 7")


def test_floating_point_pixels_are_refused():
    data = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(UnreadablePicture, match="floating-point"):
        decode_picture(data, "p")


def test_the_error_crosses_process_boundaries():
    error = pickle.loads(pickle.dumps(UnreadablePicture("a.jpg", "it is empty")))
    assert (error.name, error.reason) == ("a.jpg", "it is empty")
    assert str(error) == "a.jpg cannot be read as a picture: it is empty"


def test_decoded_pictures_pass_through(scene):
    assert decode_picture(scene, "p") is not None
    np.testing.assert_array_equal(decode_picture(scene, "p"), scene)
    grey = scene[..., :1]
    for array in (grey, grey[..., 0]):
        np.testing.assert_array_equal(decode_picture(array, "p"), np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(decode_picture(np.concatenate([scene, grey], axis=-1), "p"), scene)
    with pytest.raises(UnreadablePicture, match=r"expected uint8 \[height, width, 1, 3 or 4\], got float32"):
        decode_picture(scene.astype(np.float32), "p")
