"""Examples under another data set's class numbers."""

import pickle

import numpy as np
import pytest

from swin_jax.data.examples import ClassificationEval
from swin_jax.data.pipeline import eval_batches
from swin_jax.data.sources.renumbered import present_classes, renumber


class Listed:
    """Records with the given labels; a tuple stands for any number of right ones."""

    def __init__(self, class_names, labels):
        self.class_names, self.labels = class_names, labels
        self.identity, self.fingerprint = "listed", "0123"

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        label = self.labels[index]
        record = {"image": np.zeros((4, 4, 3), np.uint8), "name": str(index)}
        if not isinstance(label, tuple):
            return record | {"label": label}
        accepted = np.isin(np.arange(len(self.class_names)), label)
        return record | {"label": label[0] if label else -1, "accepted": accepted}


NAMES = ("n0", "n1", "n2", "n3")


def test_labels_are_found_by_name():
    source = renumber(Listed(("n3", "n1"), [0, 1, -1]), NAMES)
    assert source.class_names == NAMES
    assert [source[index]["label"] for index in range(3)] == [3, 1, -1]
    assert present_classes(source) == (1, 3)
    assert pickle.loads(pickle.dumps(source.numbers)) == (3, 1)


def test_several_labels_are_found_by_name():
    source = renumber(Listed(("n3", "n1", "n0"), [(0, 2), (), (1,)]), NAMES)
    assert [source[index]["accepted"].tolist() for index in range(3)] == [
        [True, False, False, True],
        [False] * 4,
        [False, True, False, False],
    ]
    assert [source[index]["label"] for index in range(3)] == [3, -1, 1]
    assert present_classes(source) == (0, 1, 3)
    example = ClassificationEval(size=(4, 4), resize=None)
    batch = next(iter(eval_batches(source, example, batch_size=4)))
    assert batch["accepted"].tolist() == [source[index]["accepted"].tolist() for index in range(3)] + [
        [False] * 4
    ]
    assert batch["valid"].tolist() == [True, True, True, False]


def test_the_same_classes_need_nothing():
    source = Listed(NAMES, [0])
    assert renumber(source, NAMES) is source


def test_a_class_that_the_run_lacks_is_refused():
    with pytest.raises(
        ValueError,
        match=r"^listed has the class 'x', which the run does not know \(2 of 3\); the run's 4 classes are called "
        r"n0, n1, n2, \.\.\.$",
    ):
        renumber(Listed(("n1", "x", "y"), [0]), NAMES)
