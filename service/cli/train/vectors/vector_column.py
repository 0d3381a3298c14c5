"""The column of vectors of a Parquet file, a vector or several in each row.

N vectors of all rows, D numbers in each.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tubelet.models.errors import MissingExtra
from tubelet.service.cli.evaluation.dataset import InvalidDataset

_NAMES = ("vector", "vectors", "embedding", "embeddings", "feature", "features")
_MOST_NESTED = 2  # lists in lists
_PATHS = ("path", "file", "video", "filename", "video_path")  # columns of a list of videos


def vector_column(file: Path) -> str | None:
    """Return the name of the column of vectors of a Parquet file; None if it has none, or cannot be read.

    It is named ``vector`` or so, or is the only column of lists of numbers in a file without paths.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtra(f"{file} needs pyarrow: pip install 'tubelet[parquet]'") from None
    try:
        schema = pyarrow.parquet.read_schema(file)
    except (OSError, pyarrow.ArrowException):
        return None  # whoever reads lists says why
    for wanted in _NAMES:
        for name in schema.names:
            if name.strip().lower() == wanted:
                return name
    lists = [each.name for each in schema if _depth(each.type)]
    has_paths = any(name.strip().lower() in _PATHS for name in schema.names)
    return lists[0] if len(lists) == 1 and not has_paths else None


def read_column(file: Path) -> tuple[NDArray[np.float32], NDArray[np.int64], str]:
    """Return all vectors, (N, D), the row of each, (N,), and their level, "" where the file does not say.

    Raises:
        OSError: the file cannot be read.
        InvalidDataset: a row has no vector; vectors have no numbers, differ in length or are not finite.
    """
    import pyarrow.parquet

    name = vector_column(file)
    table = pyarrow.parquet.read_table(file)
    column: Any = table.column(name).combine_chunks()
    if not (depth := _depth(column.type)):
        raise InvalidDataset(
            f"{file}: the column {name} has values of {column.type}; lists of numbers are wanted, a vector "
            "or several in each row"
        )
    rows = np.arange(len(table))
    for _ in range(depth - 1):
        counts = _counts(file, name, column, rows)
        column, rows = column.flatten(), rows.repeat(counts)
    widths = _counts(file, name, column, rows)
    if len(widths) and (bad := np.flatnonzero(widths != widths[0])).size:
        raise InvalidDataset(
            f"{file}, row {rows[bad[0]] + 1}: a vector has {widths[bad[0]]} numbers, but the first one has "
            f"{widths[0]}"
        )
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    vectors = numbers.astype(np.float32).reshape(len(rows), -1)
    if len(bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
        raise InvalidDataset(f"{file}, row {rows[bad[0]] + 1}: the vector has numbers that are not finite")
    level = (table.schema.metadata or {}).get(b"tubelet.level", b"").decode()
    return vectors, rows, level


def _counts(file: Path, name: str | None, column: Any, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the length of each list of a column; ``rows`` has the row of each.

    Raises:
        InvalidDataset: a list is missing or empty.
    """
    import pyarrow.compute

    counts = pyarrow.compute.call_function("list_value_length", [column]).fill_null(0).to_numpy()
    if len(empty := np.flatnonzero(counts == 0)):
        raise InvalidDataset(f"{file}, row {rows[empty[0]] + 1}: the column {name} has no vector")
    return counts.astype(np.int64)


def _depth(kind: Any) -> int:
    """Return how deep lists of numbers are nested: 1 is a vector, 2 several; 0 is something else."""
    import pyarrow

    depth = 0
    while (
        pyarrow.types.is_list(kind)
        or pyarrow.types.is_large_list(kind)
        or pyarrow.types.is_fixed_size_list(kind)
    ):
        kind, depth = kind.value_type, depth + 1
    is_number = pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)
    return depth if is_number and depth <= _MOST_NESTED else 0
