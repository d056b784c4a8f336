"""Learning rates against closed forms written in plain Python, and against the published recipes' values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.training.preflight import duration
from swin_jax.training.schedules import make_schedule, scale_lr

TOTAL, WARMUP = 1000, 70
# First and last steps, both sides of the warm-up's end and of the total, and beyond.
STEPS = [0, 1, 2, 35, 69, 70, 71, 299, 300, 301, 500, 534, 535, 536, 699, 700, 701, 998, 999, 1000, 1500]
PEAK, START, END = 1e-3, 1e-6, 1e-5


def cosine(t, total):
    return END + (PEAK - END) * (1 + math.cos(math.pi * min(t, total) / total)) / 2


def rising(t):
    return START + (PEAK - START) * t / WARMUP


CASES = {
    "cosine after the warm-up": (
        {"kind": "cosine", "end": END},
        lambda t: cosine(t - WARMUP, TOTAL - WARMUP),
    ),
    "cosine from step 0": (
        {"kind": "cosine", "end": END, "warmup_prefix": False},
        lambda t: cosine(t, TOTAL),
    ),
    "linear": (
        {"kind": "linear", "end": 0.01 * PEAK},
        lambda t: PEAK * (1 - 0.99 * min((t - WARMUP) / (TOTAL - WARMUP), 1)),
    ),
    "step": (
        {"kind": "step", "decay_steps": 300, "decay_rate": 0.5},
        lambda t: PEAK * 0.5 ** (t // 300),
    ),
    "step after the warm-up": (
        {"kind": "step", "decay_steps": 230, "warmup_prefix": True},
        lambda t: PEAK * 0.1 ** ((t - WARMUP) // 230),
    ),
    "multistep": (
        {"kind": "multistep", "milestones": (300, 535, 700)},
        lambda t: PEAK * 0.1 ** ((t >= 300) + (t >= 535) + (t >= 700)),
    ),
    "poly": (
        {"kind": "poly", "power": 0.9, "end": END},
        lambda t: END + (PEAK - END) * (1 - min(t / TOTAL, 1)) ** 0.9,
    ),
    "constant": ({"kind": "constant"}, lambda t: PEAK),
}


@pytest.mark.parametrize("name", CASES)
def test_follows_its_closed_form_at_every_step(name):
    options, main = CASES[name]
    schedule = make_schedule(**options, peak=PEAK, total_steps=TOTAL, warmup_steps=WARMUP, warmup_start=START)
    got = jax.jit(jax.vmap(schedule))(jnp.asarray(STEPS, jnp.int32))
    assert got.dtype == jnp.float32
    expected = [rising(t) if t < WARMUP else main(t) for t in STEPS]
    np.testing.assert_allclose(got, expected, rtol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_without_warm_up_the_first_rate_is_the_peak(name):
    options, _ = CASES[name]
    options = {key: value for key, value in options.items() if key != "warmup_prefix"}
    schedule = make_schedule(**options, peak=PEAK, total_steps=TOTAL)
    assert float(schedule(0)) == pytest.approx(PEAK, rel=1e-6)


def test_ratio_warm_up_multiplies_the_running_schedule():
    # Segmentation, 160,000 iterations: base (1 - t/160000) times (1 - (1 - t/1500)(1 - 1e-6)) while t < 1500.
    poly = make_schedule("poly", peak=6e-5, total_steps=160_000, warmup_steps=1500, warmup_ratio=1e-6)
    for t in (0, 1, 10, 750, 1499, 1500, 1501, 80_000, 159_999):
        expected = 6e-5 * (1 - t / 160_000) * (1 - (1 - t / 1500) * (1 - 1e-6) if t < 1500 else 1)
        assert float(poly(t)) == pytest.approx(expected, rel=2e-6)


def test_detection_warm_up_and_milestones():
    # 1x, 12 epochs of 7,330 iterations: x.1 after epochs 8 and 11, 500 iterations from ratio .001.
    epoch = 7330
    schedule = make_schedule(
        "multistep",
        peak=1e-4,
        total_steps=12 * epoch,
        milestones=(8 * epoch, 11 * epoch),
        warmup_steps=500,
        warmup_ratio=0.001,
    )
    assert float(schedule(0)) == pytest.approx(1e-7, rel=1e-3)
    assert float(schedule(250)) == pytest.approx(1e-4 * (1 - 0.5 * 0.999), rel=1e-5)
    assert float(schedule(500)) == pytest.approx(1e-4, rel=1e-6)
    assert float(schedule(8 * epoch - 1)) == pytest.approx(1e-4, rel=1e-6)
    assert float(schedule(8 * epoch)) == pytest.approx(1e-5, rel=1e-6)
    assert float(schedule(11 * epoch)) == pytest.approx(1e-6, rel=1e-6)


def test_published_imagenet_recipe():
    # 300 epochs of 1,251 steps at batch 1024, 20 of them warm-up: 1e-6 -> 1e-3 -> 1e-5.
    epoch = 1251
    batch = 1024
    options = {
        "peak": scale_lr(5e-4, batch),
        "warmup_start": scale_lr(5e-7, batch),
        "end": scale_lr(5e-6, batch),
        "total_steps": 300 * epoch,
        "warmup_steps": 20 * epoch,
    }
    prefixed = make_schedule("cosine", **options)
    assert float(prefixed(0)) == pytest.approx(1e-6, rel=1e-6)
    assert float(prefixed(20 * epoch)) == pytest.approx(1e-3, rel=1e-6)
    assert float(prefixed(160 * epoch)) == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-5)
    assert float(prefixed(300 * epoch)) == pytest.approx(1e-5, rel=1e-5)
    # The released logs: the cosine has been running since step 0, at a factor of .989 when the warm-up ends.
    released = make_schedule("cosine", **options, warmup_prefix=False)
    drop = float(released(20 * epoch)) / float(released(20 * epoch - 1))
    assert drop == pytest.approx(0.989, abs=5e-4)


# Base values per 512, batch and epochs of the released configs -> the rates at their batch.
RECIPES = {
    "22K pre-training": ((1.25e-4, 1.25e-7, 1.25e-6), 4096, 90, 5, (1e-3, 1e-6, 1e-5)),
    "22K to 1K": ((2e-5, 2e-8, 2e-7), 1024, 30, 5, (4e-5, 4e-8, 4e-7)),
    "SimMIM fine-tuning": ((1.25e-3, 2.5e-7, 2.5e-7), 2048, 100, 20, (5e-3, 1e-6, 1e-6)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_published_recipes(name):
    (base, base_start, base_end), batch, epochs, warmup_epochs, (peak, start, end) = RECIPES[name]
    durations = {"batch_size": batch, "num_examples": 1_281_167}
    total, warmup = (duration("total", f"{n} epochs", **durations) for n in (epochs, warmup_epochs))
    schedule = make_schedule(
        peak=scale_lr(base, batch),
        warmup_start=scale_lr(base_start, batch),
        end=scale_lr(base_end, batch),
        total_steps=total,
        warmup_steps=warmup,
    )
    assert float(schedule(0)) == pytest.approx(start, rel=1e-5)
    assert float(schedule(warmup)) == pytest.approx(peak, rel=1e-5)
    assert float(schedule(total)) == pytest.approx(end, rel=1e-5)
    assert max(float(schedule(step)) for step in range(0, total, total // 50)) <= peak * (1 + 1e-6)


def test_reference_offset_repeats_the_first_rate():
    options = {"peak": PEAK, "total_steps": TOTAL, "warmup_steps": WARMUP, "warmup_start": START}
    plain, late = make_schedule(**options), make_schedule(**options, reference_offset=True)
    assert float(late(0)) == float(late(1)) == float(plain(0)) == pytest.approx(START)
    for t in (2, WARMUP, WARMUP + 1, TOTAL):
        assert float(late(t)) == float(plain(t - 1))


def test_scaled_leaves_the_ends_alone():
    schedule = make_schedule(
        peak=PEAK, total_steps=TOTAL, warmup_steps=WARMUP, warmup_start=START, end=END
    ).scaled(0.25)
    assert float(schedule(0)) == pytest.approx(START)
    assert float(schedule(WARMUP)) == pytest.approx(PEAK / 4)
    assert float(schedule(TOTAL)) == pytest.approx(END, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cosin"}, "'cosin'.*cosine, linear"),
        ({"kind": "cosine", "milestones": (3,)}, "milestones.*no such option"),
        ({"kind": "constant", "end": 0.1}, "end is 0.1.*no such option"),
        ({"kind": "step"}, "needs schedule.decay_steps"),
        ({"kind": "multistep"}, "needs schedule.milestones"),
        ({"kind": "multistep", "milestones": (5, 5)}, "ascending"),
        ({"warmup_steps": 101}, "warmup_steps is 101.*total_steps = 100"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"peak": float("nan")}, "peak is nan"),
        ({"end": -1.0}, "end is -1.0"),
        ({"warmup_ratio": 2.0}, "warmup_ratio is 2.0"),
        ({"warmup_ratio": 0.1, "warmup_start": 0.1}, "give only one"),
        ({"warmup_ratio": 0.1, "warmup_prefix": True}, "leave warmup_prefix unset"),
    ],
)
def test_contradictions_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(**({"peak": 1e-3, "total_steps": 100} | options))


def test_scale_lr_is_linear_in_the_batch():
    assert scale_lr(1.25e-4, 4096) == pytest.approx(1e-3)
    assert scale_lr(2e-5, 1024) == pytest.approx(4e-5)
    assert scale_lr(1.0, 64, per=256) == 0.25
    with pytest.raises(ValueError, match="total_batch=0"):
        scale_lr(1.0, 0)
