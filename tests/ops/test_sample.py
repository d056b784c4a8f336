"""Samples: exact counts, uniform, the same whatever surrounds them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops.assign import Assignment, max_iou
from swin_jax.ops.augment import row_keys
from swin_jax.ops.sample import Sample, balanced, with_truth

draw = jax.jit(balanced, static_argnames=("total", "most_positive"))


def names(count: int, start: int = 0) -> jax.Array:
    return jnp.arange(start, start + count, dtype=jnp.uint32)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        (40, 80, (8, 24)),
        (5, 80, (5, 27)),
        (0, 80, (0, 32)),
        (40, 10, (8, 10)),
        (3, 2, (3, 2)),
        (0, 0, (0, 0)),
    ],
)
def test_counts_are_exact(positives: int, negatives: int, expected: tuple[int, int]):
    kind = np.repeat([1, 0, -1], [positives, negatives, 120 - positives - negatives])
    np.random.RandomState(0).shuffle(kind)
    sample = draw(
        jax.random.key(1),
        names(120),
        jnp.asarray(kind == 1),
        jnp.asarray(kind == 0),
        total=32,
        most_positive=8,
    )
    valid, positive, index = np.asarray(sample.valid), np.asarray(sample.positive), np.asarray(sample.rows)
    assert (positive.sum(), (valid & ~positive).sum()) == expected
    assert valid[: sum(expected)].all()
    assert positive[: expected[0]].all()
    assert (kind[index[positive]] == 1).all()
    assert (kind[index[valid & ~positive]] == 0).all()
    assert len(set(index[valid].tolist())) == valid.sum()


def test_fewer_candidates_than_rows():
    one = jnp.array([True, False, False])
    sample = draw(jax.random.key(0), names(3), one, ~one, total=8, most_positive=4)
    np.testing.assert_array_equal(sample.valid, [True] * 3 + [False] * 5)
    assert sorted(np.asarray(sample.rows)[:3].tolist()) == [0, 1, 2]


def test_every_candidate_is_drawn_equally_often():
    """Chi-square of 2000 draws of 4 of 20 positives and 8 of 20 negatives; 19 degrees of freedom, p = 1e-4 at 50."""
    positive = jnp.arange(40) % 2 == 0
    keys = row_keys(jax.random.key(3), 2000)
    sample = jax.jit(
        jax.vmap(lambda key: balanced(key, names(40), positive, ~positive, total=12, most_positive=4))
    )(keys)
    counts = np.bincount(np.asarray(sample.rows).ravel(), minlength=40)
    for kind, expected in ((0, 400), (1, 800)):
        drawn = counts[kind::2]
        assert ((drawn - expected) ** 2 / expected).sum() < 50
    # Neighbours are not drawn together: 4 of 20 hold a given pair in 4 * 3 / (20 * 19) of the draws.
    first = np.asarray(sample.rows)[:, :4]
    together = ((first == 0).any(1) & (first == 2).any(1)).mean()
    assert together == pytest.approx(12 / 380, abs=0.02)


def chosen(sample: Sample, of: np.ndarray) -> set[int]:
    return set(of[np.asarray(sample.rows)[np.asarray(sample.valid)]].tolist())


def test_padding_and_order_change_no_draw():
    """The same candidates by name, between others that take no part."""
    rng = np.random.RandomState(0)
    positive = rng.rand(50) < 0.4
    plain = draw(
        jax.random.key(2), names(50), jnp.asarray(positive), jnp.asarray(~positive), total=16, most_positive=6
    )
    place = rng.permutation(80)[:50]
    wide_names, wide_positive, wide_negative = np.arange(1000, 1080), np.zeros(80, bool), np.zeros(80, bool)
    wide_names[place], wide_positive[place], wide_negative[place] = np.arange(50), positive, ~positive
    wide = draw(
        jax.random.key(2),
        jnp.asarray(wide_names, jnp.uint32),
        jnp.asarray(wide_positive),
        jnp.asarray(wide_negative),
        total=16,
        most_positive=6,
    )
    assert chosen(plain, np.arange(50)) == chosen(wide, wide_names)


def test_a_row_of_the_batch_draws_alike_in_any_batch():
    positive = jnp.arange(60) < 30
    one = partial(balanced, names=names(60), positive=positive, negative=~positive, total=10, most_positive=5)
    keys = row_keys(jax.random.key(5), 4)
    batch = jax.jit(jax.vmap(one))(keys)
    np.testing.assert_array_equal(batch.rows[2], jax.jit(one)(keys[2]).rows)
    assert not np.array_equal(batch.rows[2], batch.rows[3])


def test_ground_truth_joins_the_proposals_and_its_padding_changes_nothing():
    rng = np.random.RandomState(0)
    proposals, boxes = (jnp.asarray(rng.rand(n, 4), jnp.float32) for n in (30, 3))

    @partial(jax.jit, static_argnums=0)
    def of(padding):
        padded = jnp.concatenate([boxes, jnp.zeros((padding, 4))])
        present = jnp.arange(3 + padding) < 3
        positive = jnp.arange(30) % 3 == 0
        assigned = Assignment(
            jnp.where(positive, 1, 0), positive, ~positive & (jnp.arange(30) < 25), jnp.full(30, 0.5)
        )
        candidates, found, numbers = with_truth(proposals, assigned, padded, present)
        sample = balanced(
            jax.random.key(7), numbers, found.positive, found.negative, total=12, most_positive=4
        )
        return candidates, found, sample

    candidates, found, sample = of(0)
    np.testing.assert_array_equal(candidates, jnp.concatenate([proposals, boxes]))
    np.testing.assert_array_equal(found.truth[30:], [0, 1, 2])
    assert found.positive[30:].all()
    assert not found.negative[30:].any()
    np.testing.assert_array_equal(found.positive[:30], np.arange(30) % 3 == 0)
    for one, other in zip(sample, of(5)[2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_injected_boxes_are_themselves_and_leave_the_low_quality_rule_alone():
    """Two objects lie alike, a third has no good proposal but its best."""
    boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 40, 40]])
    proposals = jnp.array([[0.0, 0, 10, 9], [20, 20, 32, 40]])
    rule = {"positive_iou": 0.7, "negative_iou": 0.7, "low_quality_iou": 0.5}
    found = max_iou(proposals, boxes, jnp.ones(3, bool), **rule)
    np.testing.assert_array_equal(found.positive, [True, True])
    _, both, _ = with_truth(proposals, found, boxes, jnp.ones(3, bool))
    np.testing.assert_array_equal(both.truth, [1, 2, 0, 1, 2])  # of two that claim a proposal the last has it
    assert both.positive.all()


def test_more_positives_than_rows_are_refused():
    with pytest.raises(ValueError, match="a sample of 4 cannot hold 5 positives"):
        balanced(jax.random.key(0), names(9), jnp.ones(9, bool), jnp.ones(9, bool), total=4, most_positive=5)
