"""Scenes of textured shapes: what the embedded data set consists of.

A scene is a pure function of (variant, seed, index): whole numbers throughout, so that every machine draws the same
pixels. Objects are placed from front to back, which makes it known at once how much of each stays visible, and
painted from back to front.
"""

import dataclasses
from typing import NamedTuple

import cv2
import numpy as np

from swin_jax.data.sources import outlines
from swin_jax.data.sources.outlines import CLASSES, COSINES, OUTLINES, SINES, TURN, Outline
from swin_jax.data.sources.textures import FULL, HUES, TEXTURES, colour, contrast, painted, texture

SIZE = 128
FINE = 4  # an outline is filled on a grid this much finer
OPAQUE = FINE * FINE
ATTEMPTS = 30


@dataclasses.dataclass(frozen=True)
class Variant:
    """What a kind of scene holds. Radii are in pixels of a picture of 128 x 128; (low, high), both included.

    Attributes:
      main: radius of the object that gives the picture its class.
      others: radius of the other objects.
      count: how many others are tried; those that find no place are left out.
      occluders: how many of them are tried in front of the main object.
      clutter: how many patches and bands of no class lie behind, and
      litter: in front of the objects.
      main_visible: share of the main object, in percent, that must stay visible.
      visible: the same for every other object.
      inside: share of the radius, in percent, by which a centre keeps away from the edge.
      dominance: percent of the main object's visible pixels that another object may have at most.
      contrast: between an object and the background, at least.
      turn: an object's rotation in degrees, either way, at most.
      object_value, background_value: brightness of colours, in [0, 255].
      texture: contrast between the two colours of an object, in percent of what was drawn.
      background_texture: how far the background's two colours are apart at most, in [0, 255].
    """

    main: tuple[int, int]
    others: tuple[int, int]
    count: tuple[int, int]
    occluders: tuple[int, int]
    clutter: tuple[int, int]
    litter: tuple[int, int]
    main_visible: int
    visible: int
    inside: int
    dominance: int
    contrast: int
    turn: int
    object_value: tuple[int, int]
    background_value: tuple[int, int]
    texture: int
    background_texture: int


VARIANTS = {
    "easy": Variant(
        main=(36, 46),
        others=(24, 26),
        count=(0, 1),
        occluders=(0, 0),
        clutter=(0, 0),
        litter=(0, 0),
        main_visible=100,
        visible=65,
        inside=100,
        dominance=65,
        contrast=60,
        turn=30,
        object_value=(150, 250),
        background_value=(20, 90),
        texture=40,
        background_texture=25,
    ),
    "hard": Variant(
        main=(24, 42),
        others=(10, 22),
        count=(2, 6),
        occluders=(0, 2),
        clutter=(4, 10),
        litter=(1, 4),
        main_visible=60,
        visible=40,
        inside=65,
        dominance=60,
        contrast=25,
        turn=180,
        object_value=(80, 245),
        background_value=(80, 245),
        texture=100,
        background_texture=40,
    ),
}


class Scene(NamedTuple):
    """A picture with its annotations.

    Attributes:
      image: uint8 [128,128,3] RGB.
      label: class of the object with the most visible pixels.
      classes: int64 [n], of every object.
      boxes: int64 [n,4], (left, top, right, bottom) around an object's visible pixels, right and bottom exclusive.
      instances: uint8 [128,128], 0 background, i + 1 where object i is visible.
      semantic: uint8 [128,128], 0 background, 1 + class of the visible object.
    """

    image: np.ndarray
    label: int
    classes: np.ndarray
    boxes: np.ndarray
    instances: np.ndarray
    semantic: np.ndarray


class Sprite(NamedTuple):
    """A filled outline at its place, clipped to the picture.

    Attributes:
      rows, columns: where.
      coverage: uint8, of these pixels, in sixteenths.
      label: class, or None for clutter.
    """

    rows: slice
    columns: slice
    coverage: np.ndarray
    label: int | None

    @property
    def mask(self) -> np.ndarray:
        return self.coverage >= OPAQUE // 2


def draw_scene(variant: str, seed: int, index: int) -> Scene:
    """Scene `index` of the endless series that a seed names."""
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
    rules = VARIANTS[variant]
    sprites = _compose(rules, rng)
    background = _pick_colour(rules.background_value, rng)
    image = _background(background, rules.background_texture, rng)
    for sprite in reversed(sprites):
        _paint(image, sprite, background, rules, rng)
    return _annotated(image, sprites)


def _compose(rules: Variant, rng: np.random.Generator) -> list[Sprite]:
    """Litter, objects and clutter from front to back; the main object always among them."""
    label = int(rng.integers(len(CLASSES)))
    for _ in range(ATTEMPTS):
        main = _object(label, rules.main, rules, rng)
        hidden = np.zeros((SIZE, SIZE), bool)
        front = [_litter(rng) for _ in range(_between(rules.litter, rng))]
        for sprite in front:
            hidden[sprite.rows, sprite.columns] |= sprite.mask
        budget = int(main.mask.sum()) * rules.dominance * rules.main_visible // 10_000
        occluders = _others(rules, _between(rules.occluders, rng), hidden, budget, rng, near=main)
        shown = main.mask & ~hidden[main.rows, main.columns]
        if int(shown.sum()) * 100 < int(main.mask.sum()) * rules.main_visible:
            continue
        hidden[main.rows, main.columns] |= main.mask
        budget = int(shown.sum()) * rules.dominance // 100
        behind = _others(rules, _between(rules.count, rng), hidden, budget, rng)
        back = [_litter(rng) for _ in range(_between(rules.clutter, rng))]
        return [*front, *occluders, main, *behind, *back]
    raise RuntimeError("no scene meets its variant's rules; the rules contradict each other")


def _others(
    rules: Variant,
    count: int,
    hidden: np.ndarray,
    budget: int,
    rng: np.random.Generator,
    near: Sprite | None = None,
) -> list[Sprite]:
    """Up to `count` objects of at most `budget` visible pixels behind what is hidden, which they extend."""
    found: list[Sprite] = []
    for _ in range(3 * count):
        if len(found) == count:
            break
        sprite = _object(int(rng.integers(len(CLASSES))), rules.others, rules, rng, near)
        shown = int((sprite.mask & ~hidden[sprite.rows, sprite.columns]).sum())
        if shown <= budget and shown * 100 >= int(sprite.mask.sum()) * rules.visible:
            hidden[sprite.rows, sprite.columns] |= sprite.mask
            found.append(sprite)
    return found


def _object(
    label: int, radii: tuple[int, int], rules: Variant, rng: np.random.Generator, near: Sprite | None = None
) -> Sprite:
    """A shape of a class, anywhere or with its centre within the rectangle of another."""
    radius = _between(radii, rng)
    margin = radius * rules.inside // 100
    rows = columns = (margin, SIZE - 1 - margin)
    if near is not None:
        rows, columns = (near.rows.start, near.rows.stop - 1), (near.columns.start, near.columns.stop - 1)
    centre = _between(rows, rng), _between(columns, rng)
    return _sprite(
        OUTLINES[CLASSES[label]], radius, centre, _between((-rules.turn, rules.turn), rng) % TURN, label
    )


def _litter(rng: np.random.Generator) -> Sprite:
    outline = (outlines.blob if rng.integers(2) else outlines.stroke)(rng)
    centre = int(rng.integers(SIZE)), int(rng.integers(SIZE))
    return _sprite(outline, _between((5, 14), rng), centre, int(rng.integers(TURN)), None)


def _sprite(outline: Outline, radius: int, centre: tuple[int, int], angle: int, label: int | None) -> Sprite:
    side = 2 * radius + 2
    cosine, sine = COSINES[angle], SINES[angle]
    contours = []
    for points in outline:
        x, y = points[:, 0], points[:, 1]
        turned = np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=-1)
        contours.append(((turned * (FINE * radius) >> 24) + FINE * side // 2).astype(np.int32))
    # A multiple of 16 keeps the average over a pixel a whole number.
    fine = np.zeros((FINE * side, FINE * side), np.uint8)
    cv2.fillPoly(fine, contours, (OPAQUE * (FULL // OPAQUE),))
    coverage = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA) // (FULL // OPAQUE)
    top, left = centre[0] - side // 2, centre[1] - side // 2
    rows, columns = (slice(max(start, 0), min(start + side, SIZE)) for start in (top, left))
    visible = coverage[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return Sprite(rows, columns, visible, label)


def _background(base: np.ndarray, apart: int, rng: np.random.Generator) -> np.ndarray:
    """A texture of two colours near each other."""
    kind = TEXTURES[int(rng.integers(len(TEXTURES)))]
    weights = texture(kind, SIZE, SIZE, rng, period=_between((8, 24), rng))
    return painted(weights, base, np.clip(base + rng.integers(-apart, apart, 3, endpoint=True), 0, FULL))


def _paint(
    image: np.ndarray, sprite: Sprite, background: np.ndarray, rules: Variant, rng: np.random.Generator
) -> None:
    """Lays a textured sprite with a dark rim and a soft shadow on the picture."""
    height, width = sprite.coverage.shape
    first = _pick_colour(rules.object_value, rng)
    for _ in range(ATTEMPTS):
        if contrast(first, background) >= rules.contrast:
            break
        first = _pick_colour(rules.object_value, rng)
    second = first + (_partner(first, rules, rng) - first) * rules.texture // 100
    kind = TEXTURES[int(rng.integers(len(TEXTURES)))]
    pixels = painted(texture(kind, height, width, rng, period=_between((5, 12), rng)), first, second)
    rim = sprite.coverage - cv2.erode(sprite.coverage, np.ones((3, 3), np.uint8), borderValue=(OPAQUE,))
    light = 256 - 50 * np.arange(height, dtype=np.uint16)[:, None] // height - 6 * rim.astype(np.uint16)
    lit = pixels.astype(np.uint16) * light[..., None] >> 8
    _shade(image, sprite)
    under = image[sprite.rows, sprite.columns]
    alpha = sprite.coverage[..., None].astype(np.uint16)
    image[sprite.rows, sprite.columns] = (lit * alpha + under * (OPAQUE - alpha) + OPAQUE // 2) >> 4


def _shade(image: np.ndarray, sprite: Sprite) -> None:
    """The sprite's shadow, two pixels below and to the right, with an edge of four."""
    height, width = sprite.coverage.shape
    shadow = np.zeros((height + 4, width + 4), np.uint8)
    shadow[2:-2, 2:-2] = sprite.coverage * (FULL // OPAQUE)
    # 25 is odd: no average lies half-way, where rounding might differ.
    soft = cv2.blur(shadow, (5, 5), borderType=cv2.BORDER_REPLICATE)
    under = image[sprite.rows.start : sprite.rows.stop + 4, sprite.columns.start : sprite.columns.stop + 4]
    soft = soft[: under.shape[0], : under.shape[1], None].astype(np.uint16)
    under[:] = under * (256 - soft // 2) >> 8


def _pick_colour(value: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return colour(int(rng.integers(HUES)), _between((90, 230), rng), _between(value, rng))


def _partner(first: np.ndarray, rules: Variant, rng: np.random.Generator) -> np.ndarray:
    """A second colour that goes with the first: brighter, darker, or another altogether."""
    choice = int(rng.integers(3))
    if choice == 0:
        return (first + 2 * FULL) // 3
    if choice == 1:
        return first * 3 // 5
    return _pick_colour(rules.object_value, rng)


def _annotated(image: np.ndarray, sprites: list[Sprite]) -> Scene:
    objects = [sprite for sprite in sprites if sprite.label is not None]
    instances = np.zeros((SIZE, SIZE), np.uint8)
    numbers = {id(sprite): number for number, sprite in enumerate(objects, start=1)}
    for sprite in reversed(sprites):
        instances[sprite.rows, sprite.columns][sprite.mask] = numbers.get(id(sprite), 0)
    classes = np.array([sprite.label for sprite in objects], np.int64)
    pixels = np.bincount(instances.ravel(), minlength=len(objects) + 1)[1:]
    semantic = np.concatenate([[0], classes + 1]).astype(np.uint8)[instances]
    boxes = np.array([_box(instances == number) for number in range(1, len(objects) + 1)], np.int64)
    return Scene(image, int(classes[pixels.argmax()]), classes, boxes, instances, semantic)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _between(limits: tuple[int, int], rng: np.random.Generator) -> int:
    return int(rng.integers(limits[0], limits[1], endpoint=True))
