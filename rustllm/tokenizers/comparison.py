"""Two tokenizers over one text: where they cut it differently, and what that costs."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from rustllm.errors import UnsupportedError
from rustllm.tokenizers.segments import Segment, segments_of
from rustllm.traits import Tokenizer

__all__ = ["Comparison", "Difference", "compare_tokenizers"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A stretch of text that the two cut differently; it holds no cut that both have.

    Attributes
    ----------
    start, end : int
        Characters of the text.
    left, right : tuple of Segment
    """

    start: int
    end: int
    left: tuple[Segment, ...]
    right: tuple[Segment, ...]

    @property
    def cost(self) -> int:
        """Tokens that the right one needs more; negative if it needs fewer."""
        return len(self.right) - len(self.left)


@dataclass(frozen=True)
class Comparison:
    """What `compare_tokenizers` finds.

    Attributes
    ----------
    left, right : list of Segment
        All tokens of each.
    differences : list of Difference
        In the order of the text.
    n_bytes : int
        Size of the text in UTF-8.
    """

    left: list[Segment]
    right: list[Segment]
    differences: list[Difference]
    n_bytes: int

    @property
    def cost(self) -> int:
        """Tokens that the right one needs more for the whole text."""
        return len(self.right) - len(self.left)

    @property
    def ratio(self) -> float:
        """Tokens of the right one for each of the left one's; 1.0 for an empty text."""
        return len(self.right) / len(self.left) if self.left else 1.0

    @property
    def share_cut_alike(self) -> float:
        """Share of the characters that lie in tokens which both have."""
        end = max((s.end or 0 for s in (*self.left[-1:], *self.right[-1:])), default=0)
        apart = sum(difference.end - difference.start for difference in self.differences)
        return 1.0 - apart / end if end else 1.0


def compare_tokenizers(
    left: Tokenizer[Any], right: Tokenizer[Any], text: str, *, special: bool = False
) -> Comparison:
    """Compare the tokens that two tokenizers make of `text`.

    Parameters
    ----------
    left, right : Tokenizer
    text : str
    special : bool
        Special tokens that the text spells become their ids.

    Returns
    -------
    Comparison

    Raises
    ------
    UnsupportedError
        One of them cannot say where in the text its tokens lie.

    Notes
    -----
    Linear in the text. Two tokens are alike if they cover the same characters; their ids are not
    compared, which are another vocabulary's.

    Examples
    --------
    >>> from rustllm import BpeTrainer
    >>> small = BpeTrainer(257).train(["so so"])
    >>> large = BpeTrainer(258).train(["so so so"])
    >>> found = compare_tokenizers(small.tokenizer, large.tokenizer, "to so so")
    >>> [(d.start, d.end, d.cost) for d in found.differences], found.cost
    ([(2, 5, -1), (5, 8, -1)], -2)
    """
    rows = []
    for tokenizer in (left, right):
        segments = segments_of(tokenizer, text, special=special)
        if any(segment.start is None for segment in segments):
            raise UnsupportedError(
                f"{tokenizer.name} cannot say where in this text its tokens lie",
                hint="it normalizes the text before cutting it",
            )
        rows.append(segments)
    one, other = rows
    cuts = sorted({*_cuts(one, len(text))} & {*_cuts(other, len(text))})
    differences = []
    for start, end, ours, theirs in zip(
        cuts, cuts[1:], _between(one, cuts), _between(other, cuts), strict=False
    ):
        if not (len(ours) == len(theirs) and _same(ours, theirs)):
            differences.append(Difference(start, end, tuple(ours), tuple(theirs)))
    return Comparison(one, other, differences, len(text.encode("utf-8", "surrogatepass")))


def _same(ours: list[Segment], theirs: list[Segment]) -> bool:
    return all(
        a.start == b.start and a.end == b.end and (len(ours) == 1 or a.data == b.data)
        for a, b in zip(ours, theirs, strict=True)
    )


def _cuts(segments: list[Segment], length: int) -> list[int]:
    """Characters before which no token reaches over: 0, the cuts, and the length of the text."""
    cuts = [0]
    reached = 0
    for segment in segments:
        start = segment.start or 0
        if start >= reached > 0:
            cuts.append(start)
        reached = max(reached, segment.end or 0)
    return [*cuts, length]


def _between(segments: list[Segment], cuts: list[int]) -> list[list[Segment]]:
    """The tokens of each stretch between two cuts."""
    groups: list[list[Segment]] = [[] for _ in cuts[1:]]
    for segment in segments:
        start = segment.start or 0
        at = bisect_left(cuts, start)
        if at == len(cuts) or cuts[at] != start:
            at -= 1
        groups[min(at, len(groups) - 1)].append(segment)
    return groups
