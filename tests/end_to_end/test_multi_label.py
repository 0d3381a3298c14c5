"""Multi-label models: the scores that are served are the sigmoid of transformers' logits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

from tests.support.checkpoints import CASES, FRAMES, SIZE, VIDEO, edit, reference
from tests.support.running_server import Served, serving
from tests.support.sample_clip import encode
from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.errors import CannotImport
from tubelet.service.cli.app import app
from tubelet.service.client import Client
from tubelet.service.types.request import Options
from tubelet.service.types.result import Activation, Classification, Segment
from tubelet.v1 import model_pb2

hf: Any = transformers
GREY = 128  # survives the way through YUV as it is
LABELS = {"alarm": ("violence",), "tags": ("indoors", "outdoors", "night")}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Return, by name, the folder and the model of two multi-label models, with one and three logits."""
    found = {}
    for name, labels in LABELS.items():
        torch.manual_seed(1)
        config = hf.VideoMAEConfig(
            **VIDEO | {"id2label": dict(enumerate(labels))},
            tubelet_size=2,
            patch_size=8,
            problem_type="multi_label_classification",
        )
        model = hf.VideoMAEForVideoClassification(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        folder = tmp_path_factory.mktemp("theirs") / name
        model.save_pretrained(folder)
        CASES["videomae"][1]().save_pretrained(folder)
        found[name] = folder, model
    return found


@pytest.fixture(scope="module")
def tags_served(
    theirs: dict[str, tuple[Path, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    store = tmp_path_factory.mktemp("store")
    for name, (folder, _) in theirs.items():
        store_model(read_source(str(folder)), store, name, "1")
    models = {"store": str(store), "default": "tags", "load": tuple(LABELS)}
    with serving(models=models, engine={"precision": "fp32"}) as server:
        yield server


@pytest.fixture(scope="module")
def grey() -> bytes:
    """Return a second of one colour, so that all frames are equal."""
    return encode([np.full((SIZE, SIZE, 3), GREY, np.uint8)] * 25)


@pytest.mark.parametrize("name", LABELS)
@torch.inference_mode()
def test_scores_are_transformers_sigmoid(
    tags_served: Served, theirs: dict[str, tuple[Path, Any]], grey: bytes, name: str
) -> None:
    folder, model = theirs[name]
    frames = torch.full((1, FRAMES, SIZE, SIZE, 3), GREY, dtype=torch.uint8)
    scores = reference(model, "videomae", folder, frames).sigmoid()[0].tolist()
    wanted = dict(zip(LABELS[name], scores, strict=True))
    assert all(0.02 < score < 0.98 for score in scores)
    with Client(tags_served.target) as client:
        told = client.model(name)
        *events, answer = client.stream(grey, Options(model=name))
    assert told.activation == model_pb2.ACTIVATION_SIGMOID
    assert isinstance(answer, Classification)
    assert answer.activation is Activation.SIGMOID
    assert {label.name: label.score for label in answer.labels} == pytest.approx(wanted, abs=1e-5)
    segments = [event for event in events if isinstance(event, Segment)]
    assert segments
    for segment in segments:
        assert segment.activation is Activation.SIGMOID
        assert {label.name: label.score for label in segment.labels} == pytest.approx(wanted, abs=1e-5)


def test_commands_name_the_activation(tags_served: Served, grey: bytes, tmp_path: Path) -> None:
    (tmp_path / "grey.mp4").write_bytes(grey)
    command = ["classify", str(tmp_path / "grey.mp4"), "--server", tags_served.target, "--json"]
    done = CliRunner().invoke(app, command)
    assert '"activation": "sigmoid"' in done.stdout
    listed = CliRunner().invoke(app, ["models", "list", "--server", tags_served.target, "--json"])
    loaded = [row for row in map(json.loads, listed.stdout.splitlines()) if row["loaded"]]
    assert [row["activation"] for row in loaded] == ["sigmoid", "sigmoid"]


def test_evaluation_counts_the_label_with_the_highest_score(
    tags_served: Served, grey: bytes, tmp_path: Path
) -> None:
    for label in LABELS["tags"]:
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "grey.mp4").write_bytes(grey)
    done = _evaluate(tags_served, "tags", tmp_path)
    assert done.exit_code == 0
    assert "tags scores each label independently" in done.stderr
    assert "top 1  0.333" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    # Each class has one of three videos, whose scores are equal but for rounding.
    assert 1 / 3 - 1e-6 <= report["mean_average_precision"] <= 1
    assert f"mAP    {report['mean_average_precision']:.3f}" in done.stdout


def test_a_single_label_cannot_be_evaluated(tags_served: Served, grey: bytes, tmp_path: Path) -> None:
    (tmp_path / "data" / "violence").mkdir(parents=True)
    (tmp_path / "data" / "violence" / "grey.mp4").write_bytes(grey)
    done = _evaluate(tags_served, "alarm", tmp_path)
    assert done.exit_code == 2
    assert "alarm has only one label, 'violence'" in done.stderr


@pytest.mark.parametrize(
    ("problem_type", "says"),
    [
        ("regression", "problem_type in its config is 'regression': the model predicts numbers, not labels"),
        ("ranking", "problem_type in its config is 'ranking'; supported are single_label_classification, "),
        (None, "the model has one logit, whose softmax is 1 for every video"),
        ("single_label_classification", "the model has one logit, whose softmax is 1 for every video"),
    ],
)
def test_models_without_class_scores_are_refused(
    theirs: dict[str, tuple[Path, Any]], tmp_path: Path, problem_type: str | None, says: str
) -> None:
    theirs["alarm"][1].save_pretrained(tmp_path / "theirs")
    CASES["videomae"][1]().save_pretrained(tmp_path / "theirs")
    edit(tmp_path / "theirs", "config.json", problem_type=problem_type)
    with pytest.raises(CannotImport, match=says):
        store_model(read_source(str(tmp_path / "theirs")), tmp_path / "store", "imported", "1")
    assert not (tmp_path / "store").exists()


def _evaluate(served: Served, model: str, folder: Path) -> Any:
    command = ["evaluate", str(folder / "data"), "--model", model, "--server", served.target]
    return CliRunner().invoke(app, [*command, "--out", str(folder / "out")])
