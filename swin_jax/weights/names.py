"""Parameter names with numbers in them, read and written by one template.

`features.{2i+1}.{j}.norm1` stands for the names of all blocks: `{i}` is the stage and `{j}` the block, both counted
from 0, and a place may hold a multiple of one plus a constant.
"""

import re
from collections.abc import Mapping
from functools import cache, cached_property

PLACE = re.compile(r"\{(\d*)([a-z])(?:\+(\d+))?\}")
Numbers = dict[str, int]


class Template:
    """One name for every stage and block.

    Raises:
        ValueError: when made, if a place is not of the form `{2i+1}`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._places = [
            (int(factor or 1), letter, int(offset or 0)) for factor, letter, offset in PLACE.findall(text)
        ]
        if "{" in PLACE.sub("", text):
            raise ValueError(f"{text!r} has a place that is not of the form {{i}}, {{i+1}} or {{2i+1}}")

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # `split` returns the groups of each place between the texts.
        return re.compile(r"(0|[1-9]\d*)".join(re.escape(text) for text in PLACE.split(self.text)[::4]))

    def match(self, name: str) -> Numbers | None:
        """Stage and block of `name`, None if it is not of this template."""
        found = self._pattern.fullmatch(name)
        if found is None:
            return None
        numbers: Numbers = {}
        for (factor, letter, offset), digits in zip(self._places, found.groups(), strict=True):
            number, rest = divmod(int(digits) - offset, factor)
            if rest or number < 0 or numbers.get(letter, number) != number:
                return None
            numbers[letter] = number
        return numbers

    def fill(self, numbers: Mapping[str, int]) -> str:
        """The name of one stage and block."""
        places = iter(self._places)

        def number(_: re.Match[str]) -> str:
            factor, letter, offset = next(places)
            return str(factor * numbers[letter] + offset)

        return PLACE.sub(number, self.text)


@cache
def template(text: str) -> Template:
    """The template of a text, made once."""
    return Template(text)
