"""``tubelet train`` on files of embeddings: those of ``classify --embeddings``, and those made elsewhere."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from tests.support.train_fields import documented
from tubelet.models.repository.repository import ModelStore
from tubelet.service.cli.app import app
from tubelet.service.cli.train.vectors.vector_table import read_vectors

WIDTH, CLIPS = 6, 24


@pytest.fixture(autouse=True)
def _in_an_empty_folder(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def report(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def made_elsewhere(path: Path, **columns: Any) -> tuple[Path, np.ndarray]:
    """Write two vectors of each of 24 clips: label b where their mean starts with a positive number."""
    vectors = np.random.default_rng(0).normal(size=(2 * CLIPS, WIDTH))
    is_b = np.arange(2 * CLIPS) // 2 % 2
    vectors[:, 0] += 4 * is_b - 2
    table = {
        "id": [f"clip {number // 2}" for number in range(2 * CLIPS)],
        "label": ["ab"[each] for each in is_b],
        "group": [f"place {number // 6}" for number in range(2 * CLIPS)],
        "vector": list(vectors),
    }
    pyarrow.parquet.write_table(pyarrow.table(table | columns), path)
    return path, vectors


def test_a_head_on_vectors_made_elsewhere(tmp_path: Path, store: Path) -> None:
    file, vectors = made_elsewhere(tmp_path / "v.parquet")
    done = invoke("train", file, "--name", "mine", "--json")
    said = report(done)
    assert "note: the file does not name one model that computed its vectors: the head alone is stored" in (
        done.stderr
    )
    assert set(said) == documented("object", "heads", "probes")
    assert (said["labels"], said["scenes"], said["model"]) == ({"a": CLIPS // 2, "b": CLIPS // 2}, 8, None)
    assert said["figures"]["accuracy"] > 0.9
    assert not store.exists()
    folder = tmp_path / "head-mine-1"
    head, means = load_file(folder / "head.safetensors"), vectors.reshape(CLIPS, 2, WIDTH).mean(axis=1)
    assert said["vectors"] == "mean"
    logits = torch.tensor(means, dtype=torch.float32) @ head["weight"].T + head["bias"]
    names = (folder / "labels.txt").read_text().split()
    assert [names[each] for each in logits.argmax(1)] == ["ab"[number % 2] for number in range(CLIPS)]
    assert "x: the mean of a clip's vectors" in (folder / "CARD.md").read_text()
    again = invoke("train", file, "--name", "mine")
    assert (again.exit_code, "head-mine-1 exists: name another folder" in again.stderr) == (1, True)
    assert invoke("train", file, "--name", "mine", "--replace").exit_code == 0
    (tmp_path / "kept").mkdir()
    other = invoke("train", file, "--name", "mine", "--out", "kept", "--replace")
    assert "kept has no head.safetensors, so that --replace would remove something else" in other.stderr


@pytest.mark.parametrize("level", ["unit", pytest.param("window", marks=pytest.mark.slow)])
def test_a_model_of_vectors_answers_as_one_of_videos(
    clips: Path, store: Path, tmp_path: Path, level: str
) -> None:
    videos = invoke("train", clips, "--name", "videos", "--from", "camera-motion", "--json")
    report(videos)
    sampling = ModelStore(store).find("videos").spec.sampling
    # Units as long as those that training made: then the vectors are the same.
    embedded = invoke(
        *("classify", "-r", clips, "--embeddings", "v.parquet", "--embedding-level", level),
        *("--only-embeddings", "--window", str(sampling.window_s), "--stride", str(sampling.window_s)),
    )
    assert embedded.exit_code == 0, embedded.stderr
    said = report(invoke("train", "v.parquet", "--name", "vectors", "--json"))
    assert said["labels"] == {"pans": 5, "stands": 5}
    entry = ModelStore(store).find("vectors")
    assert entry.spec.sampling.window_s == pytest.approx(sampling.window_s, abs=0.01)
    assert said["figures"]["accuracy"] >= 0.9
    for label in ("pans", "stands"):
        answer = invoke("classify", clips / label / "0.mp4", "--model", "vectors", "--json")
        assert json.loads(answer.stdout)["labels"][0]["label"] == label


def test_vectors_of_a_model_that_the_store_lacks(tmp_path: Path) -> None:
    rows = 2 * CLIPS
    file, _ = made_elsewhere(
        tmp_path / "v.parquet",
        model=["m"] * rows,
        version=["3"] * rows,
        fingerprint=["0123"] * rows,
    )
    schema = pyarrow.parquet.read_table(file).replace_schema_metadata({"tubelet.level": "window"})
    pyarrow.parquet.write_table(schema, file)
    done = invoke("train", file, "--name", "mine")
    assert done.exit_code == 0
    assert "the store has no model with the fingerprint of the vectors (m 3, fingerprint 0123)" in done.stderr


def test_labels_by_row_make_parts_and_folders_make_labels(tmp_path: Path) -> None:
    vectors = list(np.random.default_rng(0).normal(size=(12, 3)))
    rows = {
        "video": [f"{'ab'[number % 2]}/{number // 2}.mp4" for number in range(12)],
        "vector": vectors,
        "start_s": np.arange(12.0),
        "end_s": np.arange(12.0) + 1,
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "v.parquet")
    said = report(invoke("train", "v.parquet", "--name", "folders", "--json"))
    assert (said["labels"], said["scenes"]) == ({"a": 6, "b": 6}, 12)
    rows |= {"video": [f"{number // 4}.mp4" for number in range(12)], "label": [*"aabbbbaaaabb"]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "v.parquet")
    said = report(invoke("train", "v.parquet", "--name", "parts", "--json"))
    assert (said["labels"], said["scenes"]) == ({"a": 3, "b": 3}, 3)
    assert not any("no clip has a group" in each["sentence"] for each in said["findings"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vector", pyarrow.list_(pyarrow.float64())),
        ("embedding", pyarrow.list_(pyarrow.float16(), WIDTH)),
        ("code", pyarrow.large_list(pyarrow.float32())),
        ("vectors", pyarrow.list_(pyarrow.list_(pyarrow.float32()))),
        ("Features", pyarrow.list_(pyarrow.list_(pyarrow.float32(), WIDTH), 2)),
    ],
)
def test_a_vector_or_several_in_each_row(tmp_path: Path, name: str, kind: pyarrow.DataType) -> None:
    file, vectors = made_elsewhere(tmp_path / "v.parquet")
    table = pyarrow.parquet.read_table(file)
    values = list(vectors.astype(np.float16 if kind.value_type == pyarrow.float16() else np.float32))
    if pyarrow.types.is_floating(kind.value_type):
        table = table.drop_columns("vector")
    else:
        values = [[list(each) for each in values[row : row + 2]] for row in range(0, 2 * CLIPS, 2)]
        table = table.take(list(range(0, 2 * CLIPS, 2))).drop_columns("vector")
    pyarrow.parquet.write_table(table.add_column(0, name, pyarrow.array(values, kind)), file)
    found = read_vectors(file)
    assert [each.name for each in found.clips] == [f"clip {number}" for number in range(CLIPS)]
    for number, clip in enumerate(found.clips):
        assert found.vectors[clip.name] == pytest.approx(vectors[2 * number : 2 * number + 2], rel=2e-3)


def test_integers_are_numbers_and_rows_are_in_the_order_of_time(tmp_path: Path) -> None:
    file, _ = made_elsewhere(
        tmp_path / "v.parquet",
        vector=[[number, 0] for number in range(2 * CLIPS)],
        start=[-float(number) for number in range(2 * CLIPS)],
    )
    assert read_vectors(file).vectors["clip 1"].tolist() == [[3, 0], [2, 0]]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"vector": [[1.0, 2.0]] * 47 + [[1.0]]}, "row 48: a vector has 1 numbers, but the first one has 2"),
        ({"vector": [[1.0, 2.0]] * 47 + [None]}, "row 48: the column vector has no vector"),
        ({"vector": [[1.0]] * 47 + [[float("nan")]]}, "row 48: the vector has numbers that are not finite"),
        ({"vector": [["x"]] * 48}, "the column vector has values of list<.*>; lists of numbers are wanted"),
        ({"vector": [[[1.0]]] * 47 + [[]]}, "row 48: the column vector has no vector"),
        ({"vector": [[[1.0], [2.0]]] * 47 + [[[1.0], []]]}, "row 48: the column vector has no vector"),
        ({"start": ["0:10"] * 48}, "row 1: start is in seconds; found '0:10'"),
        ({"split": ["holdout"] * 48}, "clip 0: split must be one of train, val, validation, test"),
        ({"split": ["train", "test"] * 24}, "clip 0 has rows of several groups or splits"),
        ({"group": ["g"] * 48}, "the clips show 1 scene; at least 3 are needed"),
        ({"label": ["", *"a" * 47]}, "clip 0.* has no label"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    file, _ = made_elsewhere(tmp_path / "v.parquet", **columns)
    done = invoke("train", file, "--name", "m")
    assert done.exit_code == 2, done.exception
    assert re.search(says, done.stderr), done.stderr


def test_options_that_do_not_go_with_vectors(tmp_path: Path) -> None:
    file, _ = made_elsewhere(tmp_path / "v.parquet")
    done = invoke("train", file, "--name", "m", "--from", "camera-motion")
    assert (done.exit_code, "leave out --from, --window and --level" in done.stderr) == (1, True)
