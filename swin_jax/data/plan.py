"""Which example stands where: pure functions of (seed, global position).

Every epoch is a new permutation of the data set; epochs follow one another without a gap, so that a batch may hold
the end of one and the start of the next and no example is dropped. The position of row `r` of batch `t` is
`t * batch_size + r`. A permutation is computed entry by entry (a Feistel network), so any step of a data set of any
size is reached at once and in no memory.
"""

from collections.abc import Sequence

import numpy as np

ROUNDS = 6
SHUFFLE, DRAWS, REPLACEMENT, GEOMETRY = range(4)
"""What a random stream is for; part of its key."""


def plan(seed: int, step: int, batch_size: int, num_examples: int, repeats: int = 1) -> np.ndarray:
    """Example indices of global batch `step`, int64 [batch_size]."""
    rows = np.arange(batch_size, dtype=np.int64)
    return examples_at(seed, places(step, rows, batch_size, repeats), num_examples)


def places(step: int, rows: np.ndarray, batch_size: int, repeats: int = 1) -> np.ndarray:
    """Where in the order of examples `rows` of global batch `step` read, int64.

    With `repeats` every place of the order is read that often, in one batch or in two that follow one another
    (repeated augmentation, Hoffer et al., 2020). Its rows stand about `batch_size / repeats` apart: first come all
    first readings, then all second ones, so that mixing, which pairs neighbours, never mixes an example with itself.
    """
    readings = step * batch_size + np.arange(batch_size, dtype=np.int64)
    order = np.argsort(readings % repeats, kind="stable")
    return readings[order][rows] // repeats


def examples_at(seed: int, positions: np.ndarray, num_examples: int) -> np.ndarray:
    """Example indices at global positions (int64, any shape)."""
    epochs, inside = np.divmod(positions, num_examples)
    found = np.empty_like(inside)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        found[here] = permuted(
            inside[here], num_examples, np.random.Philox(key=_key(seed, SHUFFLE, int(epoch)))
        )
    return found


def permuted(indices: np.ndarray, size: int, bits: np.random.Philox) -> np.ndarray:
    """Where a permutation of range(size), drawn from `bits`, sends `indices` (int64 in [0, size)).

    A Feistel network permutes the smallest range of 4**k numbers that holds `size`; whoever lands outside `size`
    walks on until inside, which keeps it a permutation.
    """
    half = max(int(size - 1).bit_length() + 1, 2) // 2
    keys = bits.random_raw(ROUNDS).astype(np.uint64)
    result = indices.astype(np.uint64)
    outside = np.ones(result.shape, bool)
    while outside.any():
        result[outside] = _feistel(result[outside], half, keys)
        outside = result >= size
    return result.astype(np.int64)


def _feistel(numbers: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = numbers >> shift, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(numbers: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., 2014): every bit of the input turns half of the output's."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def eval_plan(buckets: Sequence[tuple[int, ...]], batch_size: int) -> np.ndarray:
    """The batches of a pass over all examples, each exactly once: indices int64 [batches, batch_size], -1 for none.

    A batch holds examples of one bucket (`buckets[index]`, what decides the shapes of a row) in their order; the
    largest bucket comes first, so that what does not fit into memory shows at once.
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for index, bucket in enumerate(buckets):
        members.setdefault(bucket, []).append(index)
    batches = []
    for bucket in sorted(members, reverse=True):
        indices = np.asarray(members[bucket], np.int64)
        padding = np.full(-len(indices) % batch_size, -1, np.int64)
        batches.append(np.concatenate([indices, padding]).reshape(-1, batch_size))
    return np.concatenate(batches) if batches else np.zeros((0, batch_size), np.int64)


def generator(seed: int, purpose: int, position: int) -> np.random.Generator:
    """The random stream of one row: independent between positions, purposes and seeds."""
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose, position)))


def uniforms(seed: int, positions: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for every global position, float64 [n, count]: millions of positions in a second.

    Two rounds of a mixing function over seed, position and the number's place.
    """
    salt = _mix(np.array([seed % 2**64], np.uint64) + np.uint64(GEOMETRY * 0x9E3779B97F4A7C15 % 2**64))
    places = positions.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    words = _mix(_mix(places * np.uint64(0x9E3779B97F4A7C15) + salt) ^ salt)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _key(seed: int, purpose: int, number: int) -> np.ndarray:
    return np.array([seed % 2**64, (number << 2 | purpose) % 2**64], np.uint64)
