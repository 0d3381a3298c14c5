"""Files of embeddings: NumPy's .npz, and Parquet (``tubelet[parquet]``). Both take one part after another.

N vectors, D numbers in each, V videos.
"""

import shutil
import tempfile
import zipfile
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from tubelet.service.report.text import decodable
from tubelet.service.types.embeddings import Embeddings

_ROW_GROUP_BYTES = 16 << 20  # of vectors in a row group of Parquet, about


class UnequalVectors(ValueError):
    """Vectors of another length, format or level than those that the file has."""


class VectorWriter(Protocol):
    """Writes a file of vectors: parts of one video after those of another, then ``close``."""

    def add(self, video: str, part: Embeddings) -> None:
        """Add a part of the embeddings of ``video``.

        Raises:
            UnequalVectors: the file has vectors of another kind.
            OSError: it cannot be written.
        """
        ...

    def close(self) -> None:
        """Complete the file.

        Raises:
            OSError: it cannot be written.
        """
        ...


class NpzWriter:
    """Writes a .npz without compression; vectors wait in a file without a name, as their number comes first.

    Arrays: vectors (N, D), start_s and end_s (N,) float64, view and video (N,) int32; video is an index into
    videos, models, versions and fingerprints (V,), which are text; level is text.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._vectors = tempfile.TemporaryFile(dir=Path(file.name).parent)  # noqa: SIM115 (``close`` closes it)
        self._first: Embeddings | None = None
        self._columns = {"start_s": array("d"), "end_s": array("d"), "view": array("i"), "video": array("i")}
        self._videos: dict[str, list[str]] = {"videos": [], "models": [], "versions": [], "fingerprints": []}

    def add(self, video: str, part: Embeddings) -> None:
        self._first = _check_equal(self._first, part)
        self._vectors.write(np.ascontiguousarray(part.vectors).data)
        name = decodable(video)
        if not self._videos["videos"] or self._videos["videos"][-1] != name:
            row = (name, part.model, part.version, part.fingerprint)
            for column, value in zip(self._videos.values(), row, strict=True):
                column.append(value)
        self._columns["start_s"].extend(part.start_s)
        self._columns["end_s"].extend(part.end_s)
        self._columns["view"].extend(part.view)
        self._columns["video"].extend([len(self._videos["videos"]) - 1] * len(part))

    def close(self) -> None:
        with self._vectors, self._file, zipfile.ZipFile(self._file, "w") as archive:
            if self._first is None:
                return
            columns = {name: np.array(column) for name, column in self._columns.items()}
            texts = {name: np.array(column, np.str_) for name, column in self._videos.items()}
            level = np.array(self._first.level.value)
            with archive.open("vectors.npy", "w", force_zip64=True) as member:
                _write_header(member, (len(columns["video"]), self._first.vectors.shape[1]), self._first)
                self._vectors.seek(0)
                shutil.copyfileobj(self._vectors, member)
            for name, values in {**columns, **texts, "level": level}.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)


class ParquetWriter:
    """Writes a Parquet file with a row for each vector, in row groups of about 16 MiB.

    Columns: video, start_s, end_s (float64), view (int32), vector (a list of D float32 or float16), model,
    version, fingerprint. The level is in the metadata of the schema, as tubelet.level.
    """

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._file = file
        self._first: Embeddings | None = None
        self._writer: Any = None
        self._tables: list[Any] = []  # of the next row group
        self._bytes = 0

    def add(self, video: str, part: Embeddings) -> None:
        self._first = _check_equal(self._first, part)
        self._tables.append(self._table(decodable(video), part))
        self._bytes += part.vectors.nbytes
        if self._bytes >= _ROW_GROUP_BYTES:
            self._write()

    def close(self) -> None:
        with self._file:
            if self._tables:
                self._write()
            if self._writer is not None:
                self._writer.close()

    def _table(self, video: str, part: Embeddings) -> Any:
        """Return the rows of a part."""
        arrow, rows = self._arrow, len(part)
        numbers = arrow.array(part.vectors.reshape(-1))
        columns = {
            "video": arrow.array([video] * rows, arrow.string()),
            "start_s": arrow.array(part.start_s),
            "end_s": arrow.array(part.end_s),
            "view": arrow.array(part.view),
            "vector": arrow.FixedSizeListArray.from_arrays(numbers, part.vectors.shape[1]),
            "model": arrow.array([part.model] * rows, arrow.string()),
            "version": arrow.array([part.version] * rows, arrow.string()),
            "fingerprint": arrow.array([part.fingerprint] * rows, arrow.string()),
        }
        return arrow.table(columns, metadata={"tubelet.level": part.level.value})

    def _write(self) -> None:
        """Write the tables that wait as a row group."""
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._file, self._tables[0].schema)
        table = self._arrow.concat_tables(self._tables)
        self._tables, self._bytes = [], 0
        self._writer.write_table(table, row_group_size=max(1, len(table)))


WRITERS: dict[str, Callable[[BinaryIO], VectorWriter]] = {".npz": NpzWriter, ".parquet": ParquetWriter}
"""The formats of files, by their suffix."""


def _check_equal(first: Embeddings | None, part: Embeddings) -> Embeddings:
    """Return the ``first`` part of a file; raise UnequalVectors if another part does not fit it."""
    if first is None:
        return part
    kinds = [(each.level.value, each.vectors.shape[1], each.vectors.dtype.name) for each in (first, part)]
    if kinds[0] != kinds[1]:
        had, got = (f"{width} {dtype} numbers of each {level}" for level, width, dtype in kinds)
        raise UnequalVectors(f"the file has {had}, and now the model gives {got}")
    return first


def _write_header(file: Any, shape: tuple[int, int], like: Embeddings) -> None:
    """Write the header of a .npy with ``shape`` and the format of numbers of ``like``."""
    descr = np.lib.format.dtype_to_descr(like.vectors.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
