"""What a compiled program moves, read from the text of its optimised HLO: bytes of HBM and collectives.

XLA's own cost analysis counts the body of a loop once, and so undercounts scanned blocks and accumulation. Here the
body counts as often as it runs; one that runs until data say so (drawing by rejection) counts once, and
`Program.open_loops` names it. An operation reads its operands and writes its results; where it takes a slice of
an operand or updates one in place, the slice alone counts. Arrays placed in on-chip memory, S(1) in TPU layouts,
move no byte of HBM. Sizes are those of the values, without the padding of tiles.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# What moves nothing: names, views, and the second halves of operations that were counted when they began.
FREE = (
    "parameter",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "constant",
    "after-all",
    "partition-id",
    "opt-barrier",
)
CONTROL = ("while", "conditional", "call", "async-start", "async-update", "async-done")
SLICES = ("slice", "dynamic-slice", "gather")

ARRAY = re.compile(r"([a-z]\d?[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


class Array(NamedTuple):
    bytes: int
    in_hbm: bool

    @property
    def hbm(self) -> int:
        return self.bytes if self.in_hbm else 0


class Operation(NamedTuple):
    """One line of HLO."""

    name: str
    code: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str  # what stands in the parentheses
    attributes: str

    @property
    def called(self) -> list[str]:
        found = CALLED.findall(self.attributes)
        for names in BRANCHES.findall(self.attributes):
            found += re.findall(r"%([\w.\-]+)", names)
        return found

    @property
    def hbm(self) -> int:
        return sum(array.hbm for array in self.results)


class Computation:
    """Operations by name, in order; the last named ROOT is the result."""

    def __init__(self) -> None:
        self.operations: dict[str, Operation] = {}
        self.root = ""

    @cached_property
    def parameters(self) -> list[Operation]:
        found = [op for op in self.operations.values() if op.code == "parameter"]
        return sorted(found, key=lambda op: int(op.literal))

    @cached_property
    def users(self) -> dict[str, list[Operation]]:
        users: dict[str, list[Operation]] = {name: [] for name in self.operations}
        for op in self.operations.values():
            for name in dict.fromkeys(op.operands):
                users[name].append(op)
        return users


class Collective(NamedTuple):
    times: int
    bytes: int  # of the larger side, operands or results, of one device


class Traffic(NamedTuple):
    """An operation: its name, what of the source it came from, how often it runs, and bytes of HBM in all."""

    name: str
    origin: str
    times: int
    bytes: int


class Program:
    """The optimised HLO of one device.

    Args:
        text: of `jax.stages.Compiled.as_text()`.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        current = Computation()
        for line in text.splitlines():
            if header := COMPUTATION.match(line):
                current = self.computations[header[2]] = Computation()
                self.entry = header[2] if header[1] else self.entry
            elif line.startswith("  ") and " = " in line:
                op = _operation(line)
                current.operations[op.name] = op
                current.root = op.name if line.lstrip().startswith("ROOT ") else current.root

    def hbm_bytes(self) -> int:
        """Bytes of HBM read and written by one run of the program on one device."""
        runs = self._runs()
        return sum(
            times * self._traffic(self.computations[name], op)
            for name, times in runs.items()
            for op in self.computations[name].operations.values()
        )

    def largest(self, count: int) -> list[Traffic]:
        """The operations with the most HBM traffic in one run, the largest first."""
        found = []
        for name, times in self._runs().items():
            computation = self.computations[name]
            for op in computation.operations.values():
                origin = re.search(r'op_name="([^"]*)"', op.attributes)
                moved = times * self._traffic(computation, op)
                found.append(Traffic(op.name, origin[1] if origin else "", times, moved))
        return sorted(found, key=lambda one: -one.bytes)[:count]

    def collectives(self) -> dict[str, Collective]:
        """Count and bytes of each kind of collective that one run executes."""
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for name, times in self._runs(into_fusions=True).items():
            computation = self.computations[name]
            for op in computation.operations.values():
                kind = op.code.removesuffix("-start")
                if kind in COLLECTIVES:
                    counts[kind] += times
                    sizes[kind] += times * _payload(computation, op)
        return {kind: Collective(counts[kind], sizes[kind]) for kind in COLLECTIVES if counts[kind]}

    def open_loops(self) -> list[str]:
        """Names of the loops whose length the data decide."""
        operations = (op for name in self._runs() for op in self.computations[name].operations.values())
        return [op.name for op in operations if op.code == "while" and self._trips(op) is None]

    def _runs(self, into_fusions: bool = False) -> Counter[str]:
        """How often each computation runs; a fusion is an operation, unless `into_fusions`."""
        runs: Counter[str] = Counter()

        def enter(name: str, times: int) -> None:
            runs[name] += times
            for op in self.computations[name].operations.values():
                follow = op.code in CONTROL or (into_fusions and op.code == "fusion")
                for called in op.called if follow else ():
                    enter(called, times * ((self._trips(op) or 1) if op.code == "while" else 1))

        enter(self.entry, 1)
        return runs

    def _trips(self, loop: Operation) -> int | None:
        """How often a loop runs: given, or the one constant that its condition compares the counter with, else None."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        condition = re.search(r"condition=%([\w.\-]+)", loop.attributes)
        assert condition is not None
        operations = self.computations[condition[1]].operations.values()
        bounds = [int(op.literal) for op in operations if op.code == "constant" and op.literal.isdecimal()]
        return bounds[0] if len(bounds) == 1 else None

    def _traffic(self, computation: Computation, op: Operation) -> int:
        if op.code in (*FREE, *CONTROL) or op.code.endswith("-done") or "AllocateBuffer" in op.attributes:
            return 0
        arrays = [computation.operations[name] for name in op.operands]
        if op.code == "fusion":
            inside = self.computations[op.called[0]]
            reads = sum(self._read(inside, index, array) for index, array in enumerate(arrays))
            return reads + self._written(inside, op)
        if op.code in SLICES:
            return 2 * op.hbm
        if op.code == "dynamic-update-slice":
            return 2 * arrays[1].hbm
        if op.code == "slice-start":  # its results are the whole, the slice and a token
            return op.results[1].bytes + op.results[1].hbm
        if op.code.endswith("-start"):  # its first result is the copy, the others repeat the operands
            return sum(array.hbm for array in arrays) + op.results[0].hbm
        return sum(array.hbm for array in arrays) + op.hbm

    def _read(self, computation: Computation, index: int, whole: Operation) -> int:
        """Bytes that a fused computation reads of its operand `index`."""
        if not whole.hbm or index >= len(computation.parameters):
            return whole.hbm
        total = 0
        for user in _through_views(computation, computation.parameters[index]):
            if user.code in SLICES:
                total += sum(array.bytes for array in user.results)
            elif user.code == "dynamic-update-slice" and _is_target(computation, index, user):
                continue  # updated in place
            elif user.code == "fusion":
                inner = self.computations[user.called[0]]
                name = computation.parameters[index].name
                for place, operand in enumerate(user.operands):
                    if operand == name:
                        total += self._read(inner, place, whole)
            else:
                return whole.hbm
        return min(total, whole.hbm)

    def _written(self, inside: Computation, op: Operation) -> int:
        root = inside.operations[inside.root]
        if root.code != "tuple" and len(op.results) > 1:
            return op.hbm
        parts = [inside.operations[name] for name in root.operands] if root.code == "tuple" else [root]
        total = 0
        for part, result in zip(parts, op.results, strict=True):
            while part.code == "bitcast":
                part = inside.operations[part.operands[0]]
            if part.code == "dynamic-update-slice" and result.in_hbm:
                total += sum(array.bytes for array in inside.operations[part.operands[1]].results)
            else:
                total += result.hbm
        return total


def _is_target(computation: Computation, index: int, update: Operation) -> bool:
    """Whether parameter `index`, seen through views, is what a dynamic-update-slice updates."""
    target = computation.operations[update.operands[0]]
    while target.code == "bitcast":
        target = computation.operations[target.operands[0]]
    return target.name == computation.parameters[index].name


def _through_views(computation: Computation, op: Operation) -> Iterator[Operation]:
    for user in computation.users[op.name]:
        if user.code == "bitcast":
            yield from _through_views(computation, user)
        else:
            yield user


def _payload(computation: Computation, op: Operation) -> int:
    sent = sum(array.bytes for name in op.operands for array in computation.operations[name].results)
    got = sum(array.bytes for array in op.results)
    if op.code.endswith("-start") and op.code != "all-reduce-start":
        got -= sent  # its results repeat the operands
    return max(sent, got)


def _operation(line: str) -> Operation:
    name, _, rest = line.strip().removeprefix("ROOT ").partition(" = ")
    shape, rest = _bracketed(rest) if rest.startswith("(") else rest.split(" ", 1)
    code, _, _ = rest.strip().partition("(")
    literal, attributes = _bracketed(rest.strip()[len(code) :])
    operands = tuple(re.findall(r"%([\w.\-]+)", literal))
    return Operation(name[1:], code, _arrays(shape), operands, literal[1:-1].strip(), attributes)


def _bracketed(text: str) -> tuple[str, str]:
    """Splits after the parenthesis that closes the one `text` begins with."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :]
    raise ValueError(f"HLO line without its closing parenthesis: {text[:200]}")


def _arrays(shape: str) -> tuple[Array, ...]:
    return tuple(
        Array(
            _size(kind) * math.prod(int(side) for side in sides.split(",") if side) // 8, "S(" not in layout
        )
        for kind, sides, layout in ARRAY.findall(shape)
    )


def _size(kind: str) -> int:
    """Bits of one value."""
    if kind == "pred":
        return 8
    bits = re.search(r"\d+", kind)
    return int(bits[0]) if bits else 0
