from collections.abc import Callable

class MergeLoop:
    def __init__(
        self,
        byte_ids: list[int],
        strings: dict[bytes, int],
        n_ids: int,
        max_token_length: int | None = None,
        prefix: bytes = b"",
        by_character: bool = False,
    ) -> None: ...
    def add_characters(
        self,
        words: list[str],
        counts: list[int],
        first_ids: dict[str, int],
        other_ids: dict[str, int],
    ) -> None: ...
    def run(
        self,
        vocab_size: int,
        min_frequency: int = 0,
        progress: Callable[[int], object] | None = None,
        most_postings: int | None = None,
    ) -> None: ...
    def merges_by_rank(self) -> list[tuple[int, int, int]]: ...
    def token_strings(self) -> list[bytes]: ...
    def statistics(self) -> dict[str, int]: ...
