"""Write a file whole, or leave what was there."""

from __future__ import annotations

import os
from pathlib import Path

from rustllm.errors import FileAccessError

__all__ = ["write_whole"]


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` under another name first, then rename it.

    Raises
    ------
    FileAccessError
        The file cannot be written; what was there before is still there.
    """
    target = Path(path)
    scratch = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(data)
        scratch.replace(target)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise FileAccessError(str(error), path=target, errno=error.errno) from error
