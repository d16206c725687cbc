"""Count the words that a normalizer and a pre-tokenizer of ``tokenizer.json`` cut text into."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rustllm.errors import ArgumentError, FileFormatError
from rustllm.tokenizers.normalizers import build_normalizer
from rustllm.tokenizers.pretokenizers import build_pre_tokenizer
from rustllm.tokenizers.traced_text import TracedText

__all__ = ["count_words", "lines_of_files"]

Progress = Callable[[str, int, int], object]


def count_words(
    texts: Iterable[str],
    normalizer: dict[str, Any] | None,
    pre_tokenizer: dict[str, Any] | None,
    *,
    stretches: Callable[[str], Iterable[str]] = lambda text: (text,),
) -> dict[str, int]:
    """Count the words of `texts`.

    Parameters
    ----------
    texts : iterable of str
    normalizer, pre_tokenizer : dict or None
        As in ``tokenizer.json``.
    stretches : callable
        Cuts a text where words end for certain, so that each distinct stretch is cut into words
        once. Nothing that lies in two stretches may depend on each other.

    Returns
    -------
    dict of str to int
        In the order of the words' characters.
    """
    if isinstance(texts, str):
        raise ArgumentError("texts must be an iterable of str, not a str", hint="use a list")
    found: Counter[str] = Counter()
    for text in texts:
        found.update(stretches(text))
    normalize = build_normalizer(normalizer)
    cut = build_pre_tokenizer(pre_tokenizer)
    words: dict[str, int] = {}
    for stretch, count in found.items():
        piece = TracedText.of(stretch, traced=False)
        if normalize is not None:
            normalize(piece)
        for word in cut([piece]) if cut is not None else [piece]:
            if word.text:
                words[word.text] = words.get(word.text, 0) + count
    return dict(sorted(words.items()))


def lines_of_files(
    paths: Iterable[str | os.PathLike[str]], progress: Progress | None = None
) -> Iterator[str]:
    """Lines of files of UTF-8 text, each with its line end.

    Raises
    ------
    FileMissingError, FileAccessError
        A file cannot be read.
    FileFormatError
        A file is not UTF-8.
    """
    from rustllm.tokenizers.pretoken_counting import _size_of

    if isinstance(paths, str | os.PathLike):
        raise ArgumentError("paths must be an iterable of paths", hint="use a list")
    todo = [(Path(path), _size_of(path)) for path in paths]
    total = sum(size for _, size in todo)
    done = 0
    for path, _ in todo:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise FileFormatError(
                        "this is not UTF-8 text", path=str(path), offset=done + error.start
                    ) from None
                done += len(line)
                if progress is not None and number % 1024 == 0:
                    progress("count", done, total)
    if progress is not None:
        progress("count", total, total)
