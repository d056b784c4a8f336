"""What a family of models made of a backbone and heads looks like in other code bases."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from swin_jax.weights.exchange import OURS
from swin_jax.weights.kinds import Shape
from swin_jax.weights.layouts import Layout, State


@dataclasses.dataclass(frozen=True)
class Family:
    """Models that differ in their backbone alone.

    Attributes:
      name: of the family, with its article for messages.
      noun: what such a model is.
      mark: what a path of ours in its heads begins with, and no other family's does.
      heads: name -> layout of what is not the backbone.
      beside: layout of the backbone in a file that is written -> that of the heads.
      classifiers: layers whose shape depends on the number of classes.
      classes: the bias that has a value for each class, and how many it has more.
      check: (source, found by path, shapes wanted by path): raises ValueError with a sentence of its own where the
        heads of file and model are of different kinds.
    """

    name: str
    noun: str
    mark: str
    heads: Mapping[str, Layout]
    beside: Mapping[str, str]
    classifiers: tuple[str, ...]
    classes: tuple[str, int]
    check: Callable[[str, State, Mapping[str, Shape]], None] = lambda source, found, wanted: None

    @property
    def formats(self) -> tuple[str, ...]:
        """What it is written as."""
        return (OURS, *self.beside)

    def layout_of(self, names: Iterable[str]) -> Layout | None:
        """The layout of heads with these names, None if they are no such heads."""
        names = list(names)
        return next((layout for layout in self.heads.values() if layout.prefix_of(names) is not None), None)

    def knows(self, names: Iterable[str]) -> bool:
        """Whether these names, of a weight file or ours, are of a model of this family."""
        names = list(names)
        return any(name.startswith(self.mark) for name in names) or self.layout_of(names) is not None
