"""Pictures say what they are given, in letters that are inside the picture and do not lie on each other."""

import io
import itertools
import math

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from swin_jax.tasks import pictures
from swin_jax.tasks.pictures import classes, run_curves, style
from swin_jax.tasks.pictures.sheets import TILE


@pytest.fixture
def figures(monkeypatch):
    """The matplotlib figures drawn during the test."""
    seen = []

    def keep(figure):
        seen.append(figure)
        return style.pixels(figure)

    monkeypatch.setattr(classes, "pixels", keep)
    monkeypatch.setattr(run_curves, "pixels", keep)
    return seen


def texts(figure):
    """Every visible text artist with its box in pixels."""
    assert isinstance(figure.canvas, FigureCanvasAgg)
    renderer = figure.canvas.get_renderer()
    hidden = set()  # labels of ticks beyond the limits are kept but not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        hidden |= {label for tick in ticks for label in (tick.label1, tick.label2)}
    found = []
    for artist in figure.findobj(matplotlib.text.Text):
        if artist.get_text() and artist.get_visible() and artist not in hidden:
            found.append((artist, artist.get_window_extent(renderer)))
    return found


def check_legible(figure):
    width, height = figure.canvas.get_width_height()
    boxes = texts(figure)
    for artist, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{artist.get_text()!r} leaves the picture: {box}"
    # The boxes of slanted neighbours overlap although their letters do not.
    upright = [(artist.get_text(), box) for artist, box in boxes if artist.get_rotation() % 90 == 0]
    for (text, box), (other, other_box) in itertools.combinations(upright, 2):
        covered = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert covered < 2 or high < 2, f"{text!r} and {other!r} lie on each other"


def strings(figure):
    return [artist.get_text() for artist, _ in texts(figure)]


def count(picture, color):
    """How many pixels have exactly this colour."""
    wanted = np.round(255 * np.array(to_rgb(color))).astype(np.uint8)
    return int(np.all(picture == wanted, axis=-1).sum())


def run(steps, every=1000):
    records = []
    for step in range(50, steps + 1, 50):
        records.append(
            {
                "step": step,
                "loss": 7 / (1 + step / 1000),
                "learning_rate": 1e-3 * (1 - step / steps),
                "images_per_second": 1500.0,
            }
        )
        if step % every == 0:
            records.append({"step": step, "eval/loss": 5.0, "eval/top1": 0.5, "eval/top5": step / steps})
    return records


@pytest.mark.parametrize("steps", [50, 1000, 375_300])
def test_curves_of_short_and_long_runs(figures, steps):
    records = run(steps, every=max(steps // 300, 1) * 50)
    picture = pictures.curves(records, title="swin_tiny on shapes")
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    (figure,) = figures
    check_legible(figure)
    assert {"swin_tiny on shapes", "loss", "training", "evaluation", "top-1", "top-5"} <= set(strings(figure))
    loss = figure.axes[0].get_lines()
    np.testing.assert_array_equal(loss[0].get_xdata()[-1], steps)
    np.testing.assert_allclose(loss[0].get_ydata()[0], 7 / 1.05)


def test_curves_of_a_single_point_and_of_none(figures):
    picture = pictures.curves([{"step": 1, "loss": 2.0}, {"step": 1, "learning_rate": None}])
    check_legible(figures[0])
    assert strings(figures[0]).count("no values yet") == 3
    assert count(picture, style.BLUE) > 20, "one point is drawn as a dot"
    empty = pictures.curves([])
    assert strings(figures[1]).count("no values yet") == 4
    assert count(empty, style.BLUE) == 0


def test_values_that_are_not_finite_are_left_out(figures):
    records = [{"step": step, "loss": value} for step, value in enumerate([3.0, None, math.inf, 2.0])]
    pictures.curves(records)
    np.testing.assert_array_equal(figures[0].axes[0].get_lines()[0].get_xydata(), [[0, 3], [3, 2]])


def test_other_tasks_name_other_panels(figures):
    panels = (pictures.Panel("mean IoU", {"eval/miou": "single scale"}, "percent"),)
    pictures.curves([{"step": 5, "eval/miou": 0.25}], panels=panels)
    assert {"mean IoU", "single scale", "25%"} <= set(strings(figures[0]))


def test_a_smoothed_curve_keeps_level_and_ends():
    values = np.concatenate([np.full(300, 4.0), np.full(300, 1.0)])
    smooth = run_curves._running_mean(values)
    assert smooth[0] == smooth[280] == 4
    assert smooth[-1] == smooth[320] == 1
    assert 1 < smooth[300] < 4
    np.testing.assert_allclose(smooth.mean(), values.mean(), rtol=1e-3)


def matrix_of(classes_count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, (classes_count, classes_count)) + 40 * np.eye(classes_count, dtype=int)


CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_confusion_of_few_classes_has_names_numbers_and_accuracies(figures):
    matrix = np.diag(np.arange(91, 101)) + 0
    matrix[3, 5] = 6  # six cats taken for dogs
    picture = pictures.confusion(matrix, CIFAR, title="CIFAR-10 test")
    (figure,) = figures
    check_legible(figure)
    shown = strings(figure)
    assert shown.count("cat") == shown.count("truck") == 2, "on both sides"
    assert {"6", "94", "94.0%", "100.0%", "true", "predicted"} <= set(shown)
    assert f"CIFAR-10 test: {matrix.sum()} examples, {np.trace(matrix) / matrix.sum():.2%} right" in shown
    # Rows are true classes: cat's row is the fourth from the top.
    image = figure.axes[0].get_images()[0].get_array()
    assert image[3, 5] == pytest.approx(0.06)
    assert image[5, 3] == 0
    assert picture.shape[0] > 600


@pytest.mark.parametrize("number", [2, 12, 13, 20, 21, 40])
def test_confusion_is_legible_up_to_forty_names(figures, number):
    names = [f"the class with number {index} of many" for index in range(number)]
    pictures.confusion(matrix_of(number), names)
    check_legible(figures[0])
    # Shortened, the names would all be the same.
    assert len({text for text in strings(figures[0]) if text.endswith("of many")}) == number


def test_confusion_of_many_classes_lists_the_commonest(figures):
    matrix = matrix_of(1000)
    matrix[17, 900] = 33
    matrix[500, 2] = 22
    names = [f"n{index:08d}" for index in range(1000)]
    pictures.confusion(matrix, names, worst=5)
    (figure,) = figures
    check_legible(figure)
    listed = [text for text in strings(figure) if text.startswith("n0")]
    assert listed[:4] == ["n00000017", "n00000900", "n00000500", "n00000002"]
    assert len(listed) == 10
    assert f"33 ({33 / matrix[17].sum():.0%})" in strings(figure)


def test_a_lone_confusion_survives_the_shrinking():
    shares = np.zeros((1000, 1000))
    shares[999, 7] = 0.75
    blocks = classes._block_maximum(shares, 400)
    assert blocks.shape == (334, 334)
    assert blocks.max() == blocks[333, 2] == 0.75


def test_a_class_without_examples_says_so(figures):
    matrix = np.array([[3, 1], [0, 0]])
    pictures.confusion(matrix, ["seen", "unseen"])
    assert "no examples" in strings(figures[0])
    assert "75.0%" in strings(figures[0])
    for number in (2, 50):
        pictures.confusion(np.zeros((number, number), int), [f"{index}" for index in range(number)])
        check_legible(figures[-1])


def test_names_in_any_script_and_with_dollars(figures):
    pictures.confusion(np.eye(3, dtype=int), ["$a_b^c$", "狗", "Ärger"], title="$x$")
    check_legible(figures[0])
    assert {"$a_b^c$", "□", "Ärger"} <= set(strings(figures[0]))


def test_class_bars_from_the_lowest_up(figures):
    pictures.class_bars(np.array([0.9, 0.25, np.nan, 0.5]), ["a", "b", "c", "d"], title="accuracy")
    axes = figures[0].axes[0]
    check_legible(figures[0])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "d", "a", "c"]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.5, 0.9, 0.0]
    assert "no examples" in strings(figures[0])
    # Names that shortening makes the same carry the class number, not the place of the bar.
    pictures.class_bars(
        np.array([0.9, 0.1]), ["a long name, one of two", "a long name, two of two"], title=""
    )
    assert [label.get_text()[0] for label in figures[1].axes[0].get_yticklabels()] == ["1", "0"]


def test_class_bars_of_many_classes_show_both_ends(figures):
    names = [f"class {index}" for index in range(1000)]
    values = np.linspace(0, 1, 1000)
    values[500:510] = np.nan
    pictures.class_bars(values, names, title="accuracy", most=10)
    check_legible(figures[0])
    shown = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert shown == [f"class {index}" for index in (0, 1, 2, 3, 4, 995, 996, 997, 998, 999)]
    assert "accuracy: the 5 lowest and 5 highest of 990 classes" in strings(figures[0])


def flat_image(color, height=20, width=30):
    return np.full((height, width, 3), color, np.uint8)


def test_contact_sheet_frames_by_truth():
    colors = [(10, 200, 30), (90, 90, 200), (200, 30, 200)]
    images = [flat_image(colors[0], 64, 64), flat_image(colors[1], 8, 16), flat_image(colors[2], 300, 100)]
    sheet = pictures.contact_sheet(images, ["cat 97%", "dog 51%\n(is cat)", "x"], correct=[True, False, None])
    assert sheet.dtype == np.uint8
    step = TILE + 2 * 4 + 10
    frames = [sheet[12, 10 + 40 + place * step] for place in range(3)]
    for frame, color in zip(frames, (style.GREEN, style.RED, style.FAINT), strict=True):
        np.testing.assert_array_equal(frame, np.round(255 * np.array(to_rgb(color))))
    for place, color in enumerate(colors):
        middle = sheet[10 + 4 + TILE // 2, 10 + 4 + place * step + TILE // 2]
        np.testing.assert_array_equal(middle, color)
    # Shapes are kept: the second is twice as wide as high, with paper above it; the third has paper at its sides.
    np.testing.assert_array_equal(sheet[10 + 4 + 10, 10 + 4 + step + TILE // 2], (255, 255, 255))
    np.testing.assert_array_equal(sheet[10 + 4 + TILE // 2, 10 + 4 + 2 * step + 10], (255, 255, 255))


def test_captions_stay_under_their_picture():
    sheet = pictures.contact_sheet(
        [flat_image(0)] * 3, ["short", "an endless caption " * 9, "狗 99%"], correct=[True, True, True]
    )
    step = TILE + 2 * 4 + 10
    below = sheet[10 + TILE + 8 :]
    for place in range(3):
        left = 10 + place * step
        assert below[:, left : left + TILE + 8].min() < 120, "there is ink under each picture"
        assert below[:, left + TILE + 8 : left + step].min() == 255, "and none between them"


def test_contact_sheet_breaks_rows():
    one = pictures.contact_sheet([flat_image(0)] * 3, ["a"] * 3, correct=[True] * 3, columns=3)
    two = pictures.contact_sheet([flat_image(0)] * 4, ["a"] * 4, correct=[True] * 4, columns=3)
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] == 2 * one.shape[0] - 10


def test_png_goes_round():
    picture = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    with Image.open(io.BytesIO(pictures.png(picture))) as read:
        assert read.format == "PNG"
        np.testing.assert_array_equal(np.asarray(read), picture)


def test_matplotlibs_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    pictures.curves([{"step": 1, "loss": 2.0}], title="x")
    pictures.confusion(np.eye(2, dtype=int), ["a", "b"])
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pictures.confusion(np.eye(3, dtype=int), ["a"]), r"matrix \(3, 3\) for 1 class names"),
        (lambda: pictures.class_bars(np.ones(2), ["a"], title=""), r"values \(2,\) for 1 class names"),
        (lambda: pictures.contact_sheet([], [], correct=[]), "no images"),
        (
            lambda: pictures.contact_sheet([flat_image(0)], [], correct=[True]),
            "1 images, 0 captions and 1 flags",
        ),
        (
            lambda: pictures.contact_sheet([np.zeros((4, 4, 3))], ["a"], correct=[True]),
            r"float64 \(4, 4, 3\); expected uint8",
        ),
        (
            lambda: pictures.contact_sheet([np.zeros((4, 4), np.uint8)], ["a"], correct=[True]),
            r"uint8 \(4, 4\); expected uint8 \(H, W, 3\)",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
