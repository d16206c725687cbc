"""Forms of text as expressions over bytes, and the automaton that they become.

A grammar is a set of named rules; a rule may call others and itself. Rules become one automaton
with byte ranges, empty moves and calls (Thompson 1968; recursive transition networks, Woods 1970),
which :mod:`rustllm._core.automaton` makes deterministic as a text goes along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from rustllm.errors import ArgumentError

__all__ = ["Alt", "ByteRange", "Call", "Grammar", "Network", "Node", "Repeat", "Seq", "text"]

MAX_STATES = 300_000


@dataclass(frozen=True, slots=True)
class ByteRange:
    """One byte from `low` to `high`."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Seq:
    """One part after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """One of the parts; without parts nothing at all, not even the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`part` again and again, `least` to `most` times; None has no end."""

    part: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Call:
    """What the rule of that name says."""

    rule: str


Node: TypeAlias = ByteRange | Seq | Alt | Repeat | Call


def text(data: str | bytes) -> Node:
    """Return the expression for exactly this text."""
    if isinstance(data, str):
        data = data.encode()
    return Seq(tuple(ByteRange(byte, byte) for byte in data))


class Network(NamedTuple):
    """An automaton: for each state its moves, and how deep the calls must go to finish.

    Attributes
    ----------
    edges : list of list of (low, high, next)
    empty : list of list of next
    calls : list of list of (first state of the rule, state to return to)
    ends : list of bool
        Whether a rule ends there.
    need : list of int
        Calls inside calls that the shortest way to the end of the rule takes; -1 where none leads
        there.
    start : int
    """

    edges: list[list[tuple[int, int, int]]]
    empty: list[list[int]]
    calls: list[list[tuple[int, int]]]
    ends: list[bool]
    need: list[int]
    start: int


@dataclass(frozen=True)
class Grammar:
    """Rules by name, and the one that a whole text follows."""

    rules: Mapping[str, Node]
    root: str

    def network(self, available: Iterable[int] = range(256)) -> Network:
        """Return the automaton over the bytes that are available.

        Raises
        ------
        ArgumentError
            It would be too large, or a rule calls itself before any byte.
        """
        size = sum(_size(node) + 2 for node in self.rules.values())
        if size > MAX_STATES:
            raise ArgumentError(
                f"the form takes {size} states, more than {MAX_STATES}",
                hint="smaller numbers of repetitions make it smaller",
            )
        return _Builder(self.rules, frozenset(available)).build(self.root)


def _size(node: Node) -> int:
    if isinstance(node, (ByteRange, Call)):
        return 1
    if isinstance(node, Repeat):
        copies = node.least + 1 if node.most is None else max(node.most, 1)
        return (_size(node.part) + 1) * copies + 1
    return sum(map(_size, node.parts)) + 1


class _Builder:
    """Builds from the end: what follows an expression is there before it."""

    def __init__(self, rules: Mapping[str, Node], available: frozenset[int]) -> None:
        self._rules = rules
        self._ranges = _as_ranges(available)
        self.edges: list[list[tuple[int, int, int]]] = []
        self.empty: list[list[int]] = []
        self.calls: list[list[tuple[int, int]]] = []
        self.ends: list[bool] = []

    def build(self, root: str) -> Network:
        starts = {name: self._state() for name in self._rules}
        self._starts = starts
        for name, node in self._rules.items():
            end = self._state()
            self.ends[end] = True
            self.empty[starts[name]].append(self._node(node, end))
        _refuse_left_recursion(self, starts)
        need = self._need(starts)
        return Network(self.edges, self.empty, self.calls, self.ends, need, starts[root])

    def _state(self) -> int:
        self.edges.append([])
        self.empty.append([])
        self.calls.append([])
        self.ends.append(False)
        return len(self.ends) - 1

    def _node(self, node: Node, after: int) -> int:
        if isinstance(node, Seq):
            for part in reversed(node.parts):
                after = self._node(part, after)
            return after
        state = self._state()
        if isinstance(node, ByteRange):
            for low, high in self._ranges:
                if low <= node.high and high >= node.low:
                    self.edges[state].append((max(low, node.low), min(high, node.high), after))
        elif isinstance(node, Alt):
            self.empty[state] += [self._node(part, after) for part in node.parts]
        elif isinstance(node, Call):
            self.calls[state].append((self._starts[node.rule], after))
        else:
            return self._repeat(node, state, after)
        return state

    def _repeat(self, node: Repeat, state: int, after: int) -> int:
        if node.most is None:
            self.empty[state] = [self._node(node.part, state), after]
            entry = state
        else:
            self.empty[state] = [after]
            entry = state
            for _ in range(node.most - node.least):
                again = self._state()
                self.empty[again] = [self._node(node.part, entry), after]
                entry = again
        for _ in range(node.least):
            entry = self._node(node.part, entry)
        return entry

    def _need(self, starts: Mapping[str, int]) -> list[int]:
        """Least depth from every state to the end of its rule: a fixed point, from the ends on."""
        n = len(self.ends)
        before: list[list[int]] = [[] for _ in range(n)]
        waiting: list[list[int]] = [[] for _ in range(n)]
        for state in range(n):
            for _, _, after in self.edges[state]:
                before[after].append(state)
            for after in self.empty[state]:
                before[after].append(state)
            for rule, after in self.calls[state]:
                before[after].append(state)
                waiting[rule].append(state)
        need = [0 if end else -1 for end in self.ends]
        todo = [state for state in range(n) if self.ends[state]]
        while todo:
            state = todo.pop()
            for other in (*before[state], *waiting[state]):
                least = self._least(other, need)
                if least >= 0 and (need[other] < 0 or least < need[other]):
                    need[other] = least
                    todo.append(other)
        return need

    def _least(self, state: int, need: Sequence[int]) -> int:
        found = [need[after] for _, _, after in self.edges[state]]
        found += [need[after] for after in self.empty[state]]
        for rule, after in self.calls[state]:
            if need[rule] >= 0 and need[after] >= 0:
                found.append(max(need[rule] + 1, need[after]))
        return min((depth for depth in found if depth >= 0), default=-1)


def _as_ranges(available: frozenset[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for byte in sorted(available):
        if ranges and ranges[-1][1] == byte - 1:
            ranges[-1] = (ranges[-1][0], byte)
        else:
            ranges.append((byte, byte))
    return ranges


def _refuse_left_recursion(built: _Builder, starts: Mapping[str, int]) -> None:
    """Raise where a rule can call itself without a byte in between: that would never end."""
    silent = _silent(built)
    first: dict[str, set[int]] = {}
    for name, start in starts.items():
        seen, todo = {start}, [start]
        called: set[int] = set()
        while todo:
            state = todo.pop()
            after = list(built.empty[state])
            for rule, back in built.calls[state]:
                called.add(rule)
                if rule in silent:
                    after.append(back)
            for other in after:
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        first[name] = called
    names = {start: name for name, start in starts.items()}
    done: set[str] = set()
    for name in starts:
        path, todo_names = set(), [name]
        while todo_names:
            current = todo_names.pop()
            for called_rule in first[current]:
                other_name = names[called_rule]
                if other_name == name:
                    raise ArgumentError(f"{name} stands for itself before any text", key=name)
                if other_name not in path and other_name not in done:
                    path.add(other_name)
                    todo_names.append(other_name)
        done.add(name)


def _silent(built: _Builder) -> set[int]:
    """Return the states from which the end of the rule is reached without a byte."""
    before: list[list[int]] = [[] for _ in built.ends]
    for state in range(len(built.ends)):
        for after in built.empty[state]:
            before[after].append(state)
        for rule, after in built.calls[state]:
            before[after].append(state)
            before[rule].append(state)
    todo = [state for state, end in enumerate(built.ends) if end]
    silent = set(todo)
    while todo:
        for other in before[todo.pop()]:
            if other not in silent and (
                any(after in silent for after in built.empty[other])
                or any(r in silent and after in silent for r, after in built.calls[other])
            ):
                silent.add(other)
                todo.append(other)
    return silent
