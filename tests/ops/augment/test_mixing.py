"""Mixup and cutmix: lambdas, boxes and partners as distributions, targets and pictures by closed form."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from scipy import stats

from swin_jax.ops.augment import Mixing, mix, mixing_group
from swin_jax.ops.augment.mixing import Draw, cut_box, draw_groups
from swin_jax.ops.losses import mixed_cross_entropy

GROUPS = 8000


@pytest.fixture(scope="module")
def drawn() -> Draw:
    """Of pictures of 1000 x 1000, so that whole pixels hardly show in the areas."""
    found = jax.jit(lambda key: draw_groups(key, GROUPS, 1000, 1000, Mixing()))(jax.random.key(0))
    return jax.tree.map(np.asarray, found)


def test_lambdas_of_mixup(drawn: Draw) -> None:
    assert abs(drawn.cut.mean() - 0.5) < 4 * 0.5 / np.sqrt(GROUPS)
    shares = drawn.share[~drawn.cut]
    assert stats.kstest(shares, stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * 2.6), rel=0.05)  # of Beta(a, a): 1 / (4 (2 a + 1))


def test_lambdas_of_cutmix_are_those_of_the_clipped_box(drawn: Draw) -> None:
    box = jax.tree.map(lambda side: side[drawn.cut], drawn.box)
    area = (box.bottom - box.top) * (box.right - box.left)
    np.testing.assert_allclose(drawn.share[drawn.cut], 1 - area / 1e6, atol=1e-6)
    generator = np.random.default_rng(0)
    expected = []
    for _ in range(GROUPS):
        side = int(1000 * np.sqrt(1 - generator.beta(1.0, 1.0)))
        (low, high) = np.clip(
            generator.integers(0, 1000, 2) + np.array([[-(side // 2)], [side // 2]]), 0, 1000
        )
        expected.append(1 - np.prod(high - low) / 1e6)
    assert stats.ks_2samp(drawn.share[drawn.cut], expected).pvalue > 1e-3
    assert drawn.box.top.min() == 0
    assert drawn.box.bottom.max() == 1000


def test_the_box_is_that_of_the_rule() -> None:
    """sqrt(1 - 0.75) = 1/2 of both sides, halved in whole pixels around a centre that may be any pixel."""
    boxes = jax.vmap(lambda key: cut_box(key, jnp.asarray(0.75), 15, 40))(
        jax.random.split(jax.random.key(0), 2000)
    )
    top, left, bottom, right = (np.asarray(side) for side in boxes)
    assert set(bottom - top) == {3, 4, 5, 6}  # int(7.5) // 2 = 3 on either side, cut off at the border
    assert (right - left).max() == 20
    assert (right - left).min() == 10
    inner = (top > 0) & (bottom < 15)
    assert set(((top + bottom) // 2)[inner]) == set(range(4, 12))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)], ids=["mixup", "cutmix"])
def test_pictures_and_targets_by_closed_form(mixup: float, cutmix: float) -> None:
    batch, group = 256, 128
    images = np.random.default_rng(0).normal(size=(batch, 6, 8, 3)).astype(np.float32)
    labels = np.arange(batch, dtype=np.int32) % 7
    partner_rows = np.arange(batch) ^ 1
    mixing = Mixing(mixup=mixup, cutmix=cutmix)
    mixed, partners, shares = jax.jit(lambda key: mix(jnp.asarray(images), jnp.asarray(labels), key, mixing))(
        jax.random.key(1)
    )
    np.testing.assert_array_equal(partners, labels[partner_rows])
    by_group = np.asarray(shares).reshape(-1, group)
    assert (by_group == by_group[:, :1]).all()
    assert by_group[0, 0] != by_group[1, 0]
    for row in range(batch):
        own, other, share = images[row], images[partner_rows[row]], float(shares[row])
        if mixup:
            np.testing.assert_allclose(mixed[row], share * own + (1 - share) * other, atol=1e-6)
        else:
            pasted = (np.asarray(mixed[row]) == other).all(-1)
            np.testing.assert_array_equal(np.asarray(mixed[row])[~pasted], own[~pasted])
            assert share == pytest.approx(1 - pasted.mean(), abs=1e-6)

    logits = np.random.default_rng(1).normal(size=(batch, 7)).astype(np.float32)
    smoothed = 0.1 / 7 + 0.9 * np.eye(7)  # off value 0.1 / K, on value 0.9 + 0.1 / K
    share = np.asarray(shares)[:, None]
    target = share * smoothed[labels] + (1 - share) * smoothed[labels[partner_rows]]
    np.testing.assert_allclose(target.sum(-1), 1.0, atol=1e-6)
    expected = -np.sum(target * np.asarray(jax.nn.log_softmax(logits)), axis=-1)
    found = mixed_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), partners, shares, smoothing=0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_probability_of_mixing() -> None:
    found = jax.jit(lambda key: draw_groups(key, 2000, 16, 16, Mixing(probability=0.3)))(jax.random.key(0))
    untouched = np.asarray(found.share) == 1.0
    assert abs(untouched.mean() - 0.7) < 0.06  # small boxes of cutmix may be empty
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 5, 3)), jnp.float32)
    never = Mixing(mixup=0.0, probability=0.0)
    mixed, _, share = jax.jit(lambda key: mix(images, jnp.arange(4), key, never))(jax.random.key(0))
    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(share, np.ones(4))


@pytest.mark.parametrize(
    ("batch", "group"), [(1024, 128), (128, 128), (64, 64), (192, 96), (2, 2), (130, 26), (254, 2)]
)
def test_groups(batch: int, group: int) -> None:
    assert mixing_group(batch) == group


def test_bad_numbers() -> None:
    with pytest.raises(
        ValueError, match="batch_size is 9; mixup and cutmix pair its rows: choose an even one"
    ):
        mixing_group(9)
    for field, name in (("mixup", "mixup_alpha"), ("cutmix", "cutmix_alpha")):
        with pytest.raises(ValueError, match=rf"augment.{name} is -1.0"):
            Mixing(**{field: -1.0})
    with pytest.raises(ValueError, match=r"augment.mix_switch is 2.0"):
        Mixing(switch=2.0)
    with pytest.raises(ValueError, match="nothing to mix by"):
        Mixing(mixup=0.0, cutmix=0.0)
