"""Sizes that differ do not meet."""

from typing import Literal, assert_type

from expect import raises

from rustllm.errors import ArgumentError
from rustllm.types import FixedMatrix, FixedWindow

Eight = FixedWindow[Literal[8]]
Four = FixedWindow[Literal[4]]


def score(window: FixedWindow[Literal[8]]) -> int:
    return int(window.matches(Eight(range(8))).sum())


eight = Eight(range(8))
four = Four(range(4))
assert_type(eight.slide(3), FixedWindow[Literal[8]])
assert score(eight) == 8
for window in Eight.over(range(20)):
    assert_type(window, FixedWindow[Literal[8]])
    score(window)

with raises(ArgumentError):
    score(four)  # E: arg-type
with raises(ArgumentError):
    eight.matches(four)  # E: arg-type
with raises(ArgumentError):
    Eight(range(4))
with raises(ArgumentError):
    FixedWindow[Literal["8"]](range(8))  # E: type-var

a = FixedMatrix[Literal[2], Literal[3]]([[1, 2, 3], [4, 5, 6]])
b = FixedMatrix[Literal[3], Literal[1]]([[1], [1], [1]])
assert_type(a @ b, FixedMatrix[Literal[2], Literal[1]])
assert_type(a.T, FixedMatrix[Literal[3], Literal[2]])
assert (a @ b).values.tolist() == [[6], [15]]
with raises(ArgumentError):
    b @ a  # E: operator
with raises(ArgumentError):
    a + b  # E: operator
with raises(ArgumentError):
    a @ a  # E: operator
