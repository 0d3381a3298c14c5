"""Files of embeddings, read back by NumPy and by pyarrow."""

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from tubelet.service.cli.options import EMBEDDING_FILES
from tubelet.service.report import vector_files
from tubelet.service.report.vector_files import WRITERS, UnequalVectors
from tubelet.service.types.embeddings import EmbeddingLevel, Embeddings

RNG = np.random.default_rng(0)
PARTS = {"a.mp4": (3, 2), "folder/b \udcff.mp4": (1,), "c.mp4": (4, 1, 2)}  # rows of each part


def part(rows: int, width: int = 5, dtype: str = "float32") -> Embeddings:
    start_ns = np.arange(rows, dtype=np.int64) * 500_000_000
    return Embeddings(
        EmbeddingLevel.UNIT,
        "camera-motion",
        "1.1.0",
        "0123456789abcdef",
        RNG.normal(size=(rows, width)).astype(dtype),
        start_ns,
        start_ns + 500_000_000,
        np.arange(rows, dtype=np.int32),
    )


def write(path: Path, dtype: str) -> list[tuple[str, Embeddings]]:
    """Write all parts to ``path``; return each with the name of its video as files have it."""
    writer = WRITERS[path.suffix](path.open("wb"))
    written = [(video, part(rows, dtype=dtype)) for video, parts in PARTS.items() for rows in parts]
    for video, each in written:
        writer.add(video, each)
    writer.close()
    return [(video.replace("\udcff", "\\xff"), each) for video, each in written]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_npz_is_read_by_numpy(tmp_path: Path, dtype: str) -> None:
    written = write(tmp_path / "out.npz", dtype)
    with np.load(tmp_path / "out.npz") as file:  # refuses pickled objects
        found = {name: file[name] for name in file}
    assert found["vectors"].dtype == dtype
    np.testing.assert_array_equal(found["vectors"], np.concatenate([each.vectors for _, each in written]))
    np.testing.assert_array_equal(found["end_s"], np.concatenate([each.end_s for _, each in written]))
    np.testing.assert_array_equal(found["start_s"] + 0.5, found["end_s"])
    np.testing.assert_array_equal(found["view"], np.concatenate([each.view for _, each in written]))
    videos = [video for video, each in written for _ in range(len(each))]
    assert found["videos"][found["video"]].tolist() == videos
    assert found["models"].tolist() == ["camera-motion"] * 3
    assert found["versions"].tolist() == ["1.1.0"] * 3
    assert found["fingerprints"].tolist() == ["0123456789abcdef"] * 3
    assert found["level"] == "unit"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("row_group_bytes", [1, 1 << 20])
def test_parquet_is_read_by_pyarrow(
    tmp_path: Path, dtype: str, row_group_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_files, "_ROW_GROUP_BYTES", row_group_bytes)
    written = write(tmp_path / "out.parquet", dtype)
    file = pyarrow.parquet.ParquetFile(tmp_path / "out.parquet")
    assert file.num_row_groups == (6 if row_group_bytes == 1 else 1)
    table = file.read()
    assert table.schema.metadata[b"tubelet.level"] == b"unit"
    assert table.schema.field("vector").type.list_size == 5
    wanted = np.concatenate([each.vectors for _, each in written])
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, 5)
    np.testing.assert_array_equal(vectors, wanted)
    assert vectors.dtype == dtype
    rows = table.drop_columns(["vector"]).to_pylist()
    assert [row["video"] for row in rows] == [video for video, each in written for _ in range(len(each))]
    assert rows[4] == {
        "video": "a.mp4",
        "start_s": 0.5,
        "end_s": 1.0,
        "view": 1,
        "model": "camera-motion",
        "version": "1.1.0",
        "fingerprint": "0123456789abcdef",
    }


@pytest.mark.parametrize("suffix", WRITERS)
def test_vectors_of_another_kind_are_refused(tmp_path: Path, suffix: str) -> None:
    writer = WRITERS[suffix]((tmp_path / f"out{suffix}").open("wb"))
    writer.add("a.mp4", part(2))
    wanted = (
        "the file has 5 float32 numbers of each unit, and now the model gives 6 float32 numbers of each unit"
    )
    with pytest.raises(UnequalVectors, match=wanted):
        writer.add("b.mp4", part(2, width=6))
    with pytest.raises(UnequalVectors, match="now the model gives 5 float16"):
        writer.add("b.mp4", part(2, dtype="float16"))
    writer.close()


def test_the_command_knows_the_formats() -> None:
    assert tuple(WRITERS) == EMBEDDING_FILES
