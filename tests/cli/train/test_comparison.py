"""``tubelet train --compare``: one table, scenes kept apart, nothing stored."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from tests.cli.train.conftest import SCENES
from tests.support.train_fields import documented
from tubelet.models.errors import CannotTrain
from tubelet.service.cli.app import app
from tubelet.service.cli.train.comparison import Way, parse_ways
from tubelet.service.types.model_ref import ModelRef

PROBES = "probe,probe@camera-motion-frame"


def compare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def table(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_ways_are_levels_on_models_and_families() -> None:
    found = parse_ways("probe, temporal@mine:2,full,r2plus1d,torchvision:r3d_18")
    none = ModelRef("none", "")
    assert found == (
        Way("probe", "probe"),
        Way("temporal@mine:2", "temporal", ModelRef("mine", "2")),
        Way("full", "full"),
        Way("r2plus1d", "full", none, "r2plus1d"),
        Way("torchvision:r3d_18", "full", none, "torchvision", "r3d_18"),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("probe", "names two ways to train or more, separated by commas; found 'probe'"),
        ("probe,probe", "--compare names probe twice"),
        ("probe,resnet", r"'resnet' is no level \(probe, temporal, full; .*\) and no family .*r2plus1d"),
    ],
)
def test_what_is_no_way_to_train_is_said(text: str, says: str) -> None:
    with pytest.raises(CannotTrain, match=says):
        parse_ways(text)


@pytest.mark.slow
def test_ways_are_measured_on_the_same_unknown_scenes(clips: Path, store: Path, tmp_path: Path) -> None:
    done = compare(clips, "--compare", PROBES, "--out", tmp_path / "out", "--json")
    said = table(done)
    assert said["folds"] == SCENES
    assert not store.exists()
    rows = {row["name"]: row for row in said["trainings"]}
    for row in rows.values():
        assert set(row) == documented("trainings", "one label a clip")
        assert row["clips"] == 2 * SCENES
        low, high = row["minus_best_interval"]
        assert low <= row["minus_best"] <= high
        assert row["training_s"] > 0
        assert row["processor_s_per_clip"] > 0
        assert row["parameters"] > 100_000
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert all(name in page for name in rows)

    # The same scenes, left out one by one by hand.
    alone = []
    for scene in range(SCENES):
        lines = ["path,label,split"]
        for number in range(SCENES):
            split = "test" if number == scene else "train"
            lines += [f"{clips}/{label}/{number}.mp4,{label},{split}" for label in ("pans", "stands")]
        (tmp_path / "clips.csv").write_text("\n".join(lines))
        done = compare(tmp_path / "clips.csv", "--name", "mine", "--replace", "--json")
        alone.append(table(done)["test"]["accuracy"])
    assert rows["probe"]["accuracy"] == pytest.approx(sum(alone) / SCENES)


def test_the_test_split_is_left_out(clips: Path, store: Path, tmp_path: Path) -> None:
    lines = ["path,label,group,split"]
    for scene in range(SCENES):
        split = "test" if scene == 0 else "train"
        lines += [f"{clips}/{label}/{scene}.mp4,{label},town {scene},{split}" for label in ("pans", "stands")]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    said = table(compare(tmp_path / "clips.csv", "--compare", PROBES, "--json"))
    assert said["folds"] == SCENES - 1
    assert {row["clips"] for row in said["trainings"]} == {2 * (SCENES - 1)}


def test_a_base_that_is_missing_is_said_before_anything_is_trained(clips: Path, store: Path) -> None:
    done = compare(clips, "--compare", "probe,probe@nothing")
    assert done.exit_code == 1
    assert "no model 'nothing' in the store" in done.stderr
    assert "embedding with" not in done.stderr


def test_too_few_scenes_are_said_before_anything_is_trained(clips: Path, store: Path, tmp_path: Path) -> None:
    lines = ["path,label,group"]
    for scene in range(3):
        lines += [f"{clips}/{label}/{scene}.mp4,{label},town {scene}" for label in ("pans", "stands")]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    done = compare(tmp_path / "clips.csv", "--compare", PROBES)
    assert done.exit_code == 2
    assert "with one part of the scenes left out in turn: the clips show 2 scenes" in done.stderr
    assert "embedding with" not in done.stderr


@pytest.mark.slow
def test_a_cnn_and_a_transformer_are_compared(clips: Path, store: Path) -> None:
    done = compare(clips, "--compare", "factorised,r2plus1d", "--epochs", "1", "--json")
    parameters = {row["name"]: row["parameters"] for row in table(done)["trainings"]}
    assert 0 < parameters["r2plus1d"] < parameters["factorised"]


@pytest.mark.slow
def test_levels_that_take_epochs_are_compared_with_those_that_take_none(clips: Path, store: Path) -> None:
    said = table(compare(clips, "--compare", "probe,temporal", "--epochs", "1", "--json"))
    assert {row["name"] for row in said["trainings"]} == {"probe", "temporal"}


def test_a_table_of_embeddings_is_refused(store: Path, tmp_path: Path) -> None:
    vectors = pa.array([[0.0, 1.0], [1.0, 0.0]], pa.list_(pa.float32()))
    rows = {"video": ["a", "b"], "label": ["x", "y"], "vector": vectors}
    pq.write_table(pa.table(rows), tmp_path / "vectors.parquet")
    done = compare(tmp_path / "vectors.parquet", "--compare", PROBES)
    assert done.exit_code == 1
    assert "has embeddings: --compare trains on videos" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "--name"),
        (("--compare", PROBES, "--name", "mine"), "--name"),
        (("--compare", PROBES, "--resume"), "--resume"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    clips: Path, store: Path, options: tuple[str, ...], says: str
) -> None:
    done = compare(clips, *options)
    assert done.exit_code == 2
    assert says in done.stderr
