"""An attentive probe, where only the order of frames tells labels apart: chosen, stored and served."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.cli.train.conftest import FRAMES
from tests.support import stored_models
from tests.support.sample_clip import town
from tests.support.videos import render
from tubelet.models.checkpoints.onnx_export import TOLERANCE, export_onnx
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.repository.repository import ModelStore
from tubelet.models.training.attentive_probe import join_units
from tubelet.models.training.probe_fit import ProbeData, fit
from tubelet.models.training.probes import Choice
from tubelet.service.cli.app import app
from tubelet.service.cli.train.data.checked_clips import check_clips
from tubelet.service.cli.train.data.clips import read_clips
from tubelet.service.cli.train.levels.fitted_probe import FittedProbe
from tubelet.service.cli.train.levels.probe import embed_clips, probe_features, trained_probe
from tubelet.service.cli.train.new_model import Answers, Recipe, Request, new_spec, store_model
from tubelet.service.cli.train.prepare import Prepared, window_sampling
from tubelet.service.cli.train.report.clip_answers import clip_outcomes
from tubelet.service.config.config import load_config

TEST_SCENES = 2
LABELS = ("brighter", "darker")
STEPS, TEMPERATURE = 45, 2.0

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def tiny(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a tiny image model into the store, and compute in float32."""
    monkeypatch.setenv("TUBELET_ENGINE__PRECISION", "fp32")
    folder = store / "tiny" / stored_models.SPEC.version
    write_folder(folder, stored_models.SPEC, stored_models.DIMS, stored_models.model(), "card")


def render_clips(folder: Path, scenes: int) -> Path:
    """Render clips that become brighter, or darker, and list them; two more scenes are the test split."""
    lines = ["path,label,group,split"]
    for scene in range(scenes + TEST_SCENES):
        picture = np.asarray(town(64, 48, seed=scene)).astype(float)
        for label in LABELS:

            def draw(number: int, picture: np.ndarray = picture, label: str = label) -> np.ndarray:
                part = number / (FRAMES - 1)
                return (picture * (0.3 + 0.7 * (part if label == "brighter" else 1 - part))).astype(np.uint8)

            name = f"{label}{scene}.mp4"
            render(folder / name, FRAMES, size=(64, 48), draw=draw)
            lines.append(f"{name},{label},town {scene},{'train' if scene < scenes else 'test'}")
    (folder / "clips.csv").write_text("\n".join(lines))
    return folder / "clips.csv"


def run(*arguments: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def assert_served_as_trained(folder: Path, model: str, trained: dict[str, list[dict[str, Any]]]) -> None:
    """Check that the command gives videos, by name, the scores of the probe in training."""
    done = CliRunner().invoke(
        app, ["classify", *(str(folder / video) for video in trained), "--model", model, "--json"]
    )
    assert done.exit_code == 0, done.stderr
    answers = map(json.loads, done.stdout.splitlines())
    served = {Path(each["video"]).name: each["labels"] for each in answers}
    assert served.keys() == trained.keys()
    for video, wanted in trained.items():
        assert [each["label"] for each in served[video]] == [each["label"] for each in wanted]
        scores = [each["score"] for each in wanted]
        assert [each["score"] for each in served[video]] == pytest.approx(scores, abs=1e-4)


def test_an_attentive_probe_is_served_as_it_was_trained(store: Path, tmp_path: Path) -> None:
    listed = render_clips(tmp_path, scenes=2)
    config, base = load_config(None), ModelStore(store).find("tiny")
    checked = check_clips(read_clips(listed), config.decode)
    prepared = Prepared(base, checked, window_sampling(base, checked.survey.lengths_s, None))
    clips = checked.survey.clips
    found = embed_clips(prepared, config, clips)
    windows = {number: torch.from_numpy(found[clip.name]) for number, clip in enumerate(clips)}
    truth = torch.tensor([LABELS.index(clip.label) for clip in clips])
    numbers = torch.arange(len(clips))
    vectors = {
        name: torch.cat([each[number] for number in windows])
        for name, each in probe_features(base, windows).vectors.items()
    }
    data = ProbeData(vectors, truth, numbers, numbers % 4, 2, join_units(list(windows.values())))
    probe = fit(data, Choice("mean and change", 3.0, 1.0, 0.0, torch.zeros(0), STEPS))
    answers = Answers(probe.logits(data) / TEMPERATURE, probe.logits(data), truth, numbers)
    recipe = Recipe("probe", "an attentive probe", "all clips", {})
    fitted = FittedProbe(probe, TEMPERATURE, recipe, answers, None)
    trained = trained_probe(base, fitted, LABELS, tuple(windows))
    request = Request(listed, "order", "1", None, None, replace=False)
    spec = new_spec(request, base, LABELS, prepared.sampling, trained.dims)
    assert spec.description == "2 labels of clips.csv, an attentive probe on tiny."
    store_model(request.folder(config), spec, trained.dims, trained.model, "card", {})

    outcomes = clip_outcomes(answers.calibrated, answers.clips, LABELS, checked.survey)
    assert all(outcome.predicted[0].name == outcome.label for outcome in outcomes)
    scores = {
        outcome.video: [{"label": each.name, "score": each.score} for each in outcome.predicted]
        for outcome in outcomes
    }
    assert_served_as_trained(tmp_path, "order", scores)
    assert export_onnx(ModelStore(store).find("order"), tmp_path / "order.onnx") <= TOLERANCE


@pytest.mark.slow
def test_the_command_chooses_an_attentive_probe(store: Path, tmp_path: Path) -> None:
    said = run("train", render_clips(tmp_path, scenes=12), "--name", "order", "--from", "tiny")
    compared = said["probes_compared"]
    assert (said["probe"], said["figures"]["accuracy"] > 0.8) == ("attentive", True)
    assert compared["linear"] - compared["attentive"] > compared["standard_error"]
    _, reason = said["reasons"]  # that of the level comes first
    assert reason.startswith("the attentive probe is taken, not the linear probe: ")
    entry = ModelStore(store).find("order")
    assert f"- Choice: {reason}" in (entry.folder / "CARD.md").read_text()
    assert "an attentive probe on" in (entry.folder / "report.html").read_text()
    # The answers for the test split are those of the probe on embeddings, before it was a model.
    lines = map(json.loads, (entry.folder / "clips.jsonl").read_text().splitlines())
    answers = {each["video"]: each["labels"] for each in lines if each["split"] == "test"}
    assert len(answers) == 2 * TEST_SCENES
    assert_served_as_trained(tmp_path, "order", answers)
