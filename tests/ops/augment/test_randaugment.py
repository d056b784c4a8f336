"""Which operations are drawn, how often and how strong; and what a policy's text means."""

import jax
import numpy as np
import pytest
from scipy import stats

from swin_jax.ops.augment import Policy, parse_policy
from swin_jax.ops.augment.randaugment import NONE, OPERATIONS, draw_applications

PUBLISHED = parse_policy("rand-m9-mstd0.5-inc1")
ROWS = 20_000


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """operation, magnitude, sign of many rows: [ROWS, 2] each."""
    found = jax.jit(lambda key: draw_applications(key, ROWS, PUBLISHED))(jax.random.key(0))
    return np.asarray(found.operation), np.asarray(found.magnitude), np.asarray(found.sign)


def test_policies() -> None:
    assert Policy(magnitude=9.0, std=0.5, operations=2, increasing=True) == PUBLISHED
    assert parse_policy("rand-n3-m4.5") == Policy(magnitude=4.5, std=0.0, operations=3, increasing=False)
    assert parse_policy("rand") == Policy(magnitude=10.0, std=0.0, operations=2, increasing=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("randaug-m9", 'expected "rand"'),
        ("rand-m9-x1", "'x1' cannot be read"),
        ("rand-m9-inc", "'inc' cannot be read"),
        ("rand-m9-m8", "'m8' repeats m"),
        ("rand-m11", "out of range"),
        ("rand-m9-inc0", "out of range"),
        ("rand-n0", "out of range"),
        ("rand-n1.5", "out of range"),
        ("rand-m-9", "cannot be read"),
        ("", 'expected "rand"'),
    ],
)
def test_policies_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_policy(text)
    assert f"augment.rand_augment is {text!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_of_the_applications_are_carried_out_and_all_operations_alike(
    drawn: tuple[np.ndarray, ...],
) -> None:
    operation = drawn[0]
    assert abs(np.mean(operation == NONE) - 0.5) < 4 * 0.5 / np.sqrt(2 * ROWS)
    counts = np.bincount(operation[operation != NONE], minlength=len(OPERATIONS))
    assert len(counts) == 15
    assert stats.chisquare(counts).pvalue > 1e-3
    # The two applications of a row are independent: also the same operation twice.
    both = operation[(operation != NONE).all(axis=1)]
    table = np.zeros((15, 15))
    np.add.at(table, (both[:, 0], both[:, 1]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_magnitudes_and_signs(drawn: tuple[np.ndarray, ...]) -> None:
    _, magnitude, sign = drawn
    flat = magnitude.ravel()
    assert flat.max() == 10.0  # clipped: 2.3% of N(9, 0.5) lie above
    assert abs(np.mean(flat == 10.0) - stats.norm.sf(2)) < 0.005
    below = flat[flat < 10.0]
    truncated = stats.truncnorm(-np.inf, 2.0, loc=9.0, scale=0.5)
    assert stats.kstest(below, truncated.cdf).pvalue > 1e-3
    assert set(np.unique(sign)) == {-1.0, 1.0}
    assert abs(sign.mean()) < 4 / np.sqrt(sign.size)
    assert abs(np.corrcoef(sign.ravel(), flat)[0, 1]) < 0.03


def test_rows_keep_their_draws_in_a_larger_batch() -> None:
    few, many = (draw_applications(jax.random.key(3), rows, PUBLISHED) for rows in (2, 8))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:2]), few, many)
