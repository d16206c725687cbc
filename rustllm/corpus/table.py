"""A corpus as a table of Arrow or Parquet: a row a document, its ids in a list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rustllm._optional import need
from rustllm.corpus.reader import Corpus
from rustllm.errors import ArgumentError
from rustllm.serialize import atomic_write

if TYPE_CHECKING:
    from rustllm.types import PathLikeStr

__all__ = ["export_table"]

_ROWS = 1 << 14
_IDS = 1 << 24


def export_table(
    source: Corpus | PathLikeStr, path: PathLikeStr, *, column: str = "input_ids"
) -> int:
    """Write the documents of a corpus to an Arrow (IPC file) or Parquet file.

    Parameters
    ----------
    source : Corpus or path
    path : path
        Ends in ``.arrow``, ``.feather`` or ``.parquet``, which tells the format. The file appears
        whole or not at all.
    column : str
        Name of the column of ids, a list of the corpus's type in each row.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    ArgumentError
        The name tells no format.
    MissingDependencyError
        pyarrow is not installed; it comes with the ``arrow`` extra.

    Notes
    -----
    Memory is that of a batch: 16,384 documents, or fewer that have 16 million ids.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".arrow", ".feather", ".parquet"):
        raise ArgumentError(
            f"{str(path)!r} is neither .arrow, .feather nor .parquet", hint="the name tells which"
        )
    pa = need("pyarrow", "arrow", "tables need")
    corpus = source if isinstance(source, Corpus) else Corpus(source)
    kind = pa.from_numpy_dtype(np.dtype(corpus.manifest["options"]["dtype"]))
    schema = pa.schema([(column, pa.large_list(kind))])
    ends = np.cumsum(np.asarray(corpus.lengths, np.int64))
    with atomic_write(path) as file, _writer(pa, file, schema, suffix) as writer:
        row = 0
        while row < len(ends):
            begin = int(ends[row - 1]) if row else 0
            last = int(np.searchsorted(ends, begin + _IDS, side="right"))
            stop = min(len(ends), row + _ROWS, max(row + 1, last))
            offsets = np.concatenate([[begin], ends[row:stop]]) - begin
            ids = pa.array(np.asarray(corpus.ids[begin : int(ends[stop - 1])]), kind)
            lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), ids)
            writer.write_batch(pa.record_batch([lists], schema=schema))
            row = stop
    return len(ends)


def _writer(pa: Any, file: Any, schema: Any, suffix: str) -> Any:
    if suffix != ".parquet":
        return pa.ipc.new_file(file, schema)
    import pyarrow.parquet as pq

    return pq.ParquetWriter(file, schema)
