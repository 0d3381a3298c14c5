"""Independent labels: their figures against scikit-learn, thresholds, and a model that is served."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from typer.testing import CliRunner

from tests.support.train_fields import documented
from tubelet.models.repository.repository import ModelStore
from tubelet.models.training.calibration import fit_temperature
from tubelet.models.training.probes import fit_linear
from tubelet.service.cli.app import app
from tubelet.service.cli.evaluation.multilabel.label_report import label_report_text, make_label_report
from tubelet.service.cli.train.new_model import Answers
from tubelet.service.cli.train.report.multilabel_figures import measure_labels, multilabel_lines
from tubelet.service.cli.train.report.thresholds import find_thresholds

NAMES = ("run", "jump", "wave", "never")


def answers(count: int) -> Answers:
    """Logits of clips with one window each, which tell most of four labels; no clip has the last one."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(count, 4, generator=generator) < torch.tensor([0.5, 0.2, 0.7, 0.0])).float()
    logits = 2 * labels - 1 + torch.randn(count, 4, generator=generator)
    return Answers(logits, logits, labels, torch.arange(count))


def test_figures_are_those_of_scikit_learn() -> None:
    made = answers(80)
    figures = measure_labels(made.calibrated, made.fitted, made.labels, made.clips, NAMES)
    scores, truth = made.calibrated.sigmoid().numpy(), made.labels.numpy()
    wanted = [average_precision_score(truth[:, each], scores[:, each]) for each in range(3)]
    assert [figures.average_precisions[name] for name in NAMES[:3]] == pytest.approx(wanted, abs=1e-6)
    assert figures.mean_average_precision == pytest.approx(np.mean(wanted))
    low, high = figures.interval
    assert figures.mean_average_precision is not None
    assert low < figures.mean_average_precision < high
    assert figures.f1 == pytest.approx(f1_score(truth, scores >= 0.5, average="micro"))
    assert figures.f1s["run"] == pytest.approx(f1_score(truth[:, 0], scores[:, 0] >= 0.5))
    assert (figures.average_precisions["never"], figures.f1s["never"]) == (None, None)


def test_labels_that_all_clips_have_have_no_mean() -> None:
    made = answers(1)
    figures = measure_labels(made.calibrated, made.fitted, made.labels, made.clips, NAMES)
    assert figures.mean_average_precision is None
    assert multilabel_lines(figures, "one clip")[0].startswith("on one clip: no mean average precision, F1 ")
    report = make_label_report(made.calibrated.sigmoid().numpy(), made.labels.numpy() > 0, NAMES)
    assert label_report_text(report).startswith("mAP    no figure: ")


def test_the_interval_of_the_calibration_error_is_over_clips() -> None:
    made = answers(80)
    once = make_label_report(made.calibrated[:, :1].sigmoid().numpy(), made.labels[:, :1].numpy() > 0, "a")
    scores, truth = (
        np.tile(each[:, :1], 50) for each in (made.calibrated.sigmoid().numpy(), made.labels > 0)
    )
    often = make_label_report(scores, np.asarray(truth), [str(number) for number in range(50)])
    widths = [high - low for low, high in (each.calibration.ece_interval for each in (once, often))]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.9])
def test_thresholds_have_the_precision(precision: float) -> None:
    made = answers(80)
    scores, truth = made.calibrated.double().sigmoid().numpy(), made.labels.numpy()
    found = find_thresholds(made, NAMES, precision)
    assert found["never"] is None
    for number, name in enumerate(NAMES[:3]):
        threshold = found[name]
        assert threshold is not None
        said = scores[:, number] >= threshold.score
        assert precision_score(truth[:, number], said) == pytest.approx(threshold.precision)
        assert threshold.precision >= precision
        assert recall_score(truth[:, number], said) == pytest.approx(threshold.recall)
        assert threshold.interval[0] < threshold.precision <= threshold.interval[1]


def test_thresholds_of_classes_are_of_the_best_label_alone() -> None:
    logits = torch.tensor([[3.0, 0], [2, 0], [1, 0], [0, 1], [0, 2]])
    made = Answers(logits, logits, torch.tensor([0, 0, 1, 1, 1]), torch.arange(5))
    found = find_thresholds(made, ("a", "b"), 1.0)
    assert found["a"] is not None
    assert found["a"].recall == 1
    assert found["a"].score == pytest.approx(logits[1].softmax(0)[0].item(), abs=1e-5)
    assert found["b"] is not None
    assert found["b"].recall == pytest.approx(2 / 3)


def test_a_probe_of_independent_labels_is_one_regression_for_each() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(60, 5, generator=generator)
    labels = (vectors[:, :2] + torch.randn(60, 2, generator=generator) > 0.3).float()
    layer = fit_linear(vectors, labels, 2, 0.2)
    scaled = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    for number in range(2):
        # Each label has half of the loss here, so that the penalty counts twice.
        theirs = LogisticRegression(C=1 / (2 * 0.2 * 60), tol=1e-8, max_iter=5000)
        theirs.fit(scaled.numpy(), labels[:, number].numpy())
        wanted = theirs.predict_proba(scaled.numpy())[:, 1]
        np.testing.assert_allclose(layer(vectors)[:, number].sigmoid().numpy(), wanted, atol=1e-3)


@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_the_temperature_of_independent_labels(temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    true = 2 * torch.randn(20_000, 3, generator=generator)
    labels = torch.bernoulli(true.sigmoid(), generator=generator)
    assert fit_temperature(true * temperature, labels) == pytest.approx(temperature, rel=0.05)


def several_labels(clips: Path, folder: Path) -> Path:
    """List clips of which half have two labels, and the others none."""
    lines = ["path,label"]
    for scene in range(5):
        lines += [f"{clips}/pans/{scene}.mp4,moves; pans", f"{clips}/stands/{scene}.mp4,"]
    (folder / "clips.csv").write_text("\n".join(lines))
    return folder / "clips.csv"


@pytest.mark.parametrize(
    "options",
    [
        ("--level", "temporal", "--from", "camera-motion", "--epochs", "2"),
        pytest.param(("--level", "full", "--from", "camera-motion", "--epochs", "1"), marks=pytest.mark.slow),
        ("--from", "none", "--family", "r2plus1d", "--epochs", "1"),
    ],
)
def test_independent_labels_at_levels_with_epochs(
    clips: Path, store: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    listed = several_labels(clips, tmp_path)
    arguments = ["train", str(listed), "--name", "several", *options, "--precision", "0.5", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert "F1" in done.stderr
    assert {"f1", "validation_f1"} <= said["history"][0].keys()
    assert set(said["figures"]) == documented("figures", "several labels a clip")
    assert said["thresholds"].keys() == {"moves", "pans"}
    spec = ModelStore(store).find("several").spec
    assert (spec.activation, spec.labels) == ("sigmoid", ("moves", "pans"))


def test_a_model_of_independent_labels_is_served(clips: Path, store: Path, tmp_path: Path) -> None:
    listed = several_labels(clips, tmp_path)
    arguments = ["train", str(listed), "--name", "several", "--from", "camera-motion"]
    done = CliRunner().invoke(app, [*arguments, "--precision", "0.9", "--json"])
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["clips"], said["labels"]) == (10, {"moves": 5, "pans": 5})
    assert "mAP on unknown scenes" in Path(said["page"]).read_text()
    assert said["figures"]["mean_average_precision"] > 0.9
    assert said["thresholds"]["pans"]["precision"] >= 0.9
    spec = ModelStore(store).find("several").spec
    assert (spec.activation, spec.labels, spec.accuracy) == ("sigmoid", ("moves", "pans"), ())
    page = tmp_path / "page.html"
    evaluate = ["evaluate", str(listed), "--model", "several", "--out", str(tmp_path / "out"), "--json"]
    measured = CliRunner().invoke(app, [*evaluate, "--html", str(page)])
    assert measured.exit_code == 0, measured.stderr
    found = json.loads(measured.stdout)
    assert (found["videos"], found["seen_in_training"]) == (10, 10)
    assert found["mean_average_precision"] > 0.9
    assert [(each["label"], each["videos"]) for each in found["classes"]] == [("moves", 5), ("pans", 5)]
    assert "mean over the labels" in page.read_text()
    refused = CliRunner().invoke(app, ["evaluate", str(listed), "--model", "camera-motion"])
    assert (refused.exit_code, "gives each clip one" in refused.stderr) == (2, True)
    for name, low, high in (("pans", 0.5, 1.0), ("stands", 0.0, 0.5)):
        answer = CliRunner().invoke(
            app, ["classify", f"{clips}/{name}/0.mp4", "--model", "several", "--json"]
        )
        scores = [each["score"] for each in json.loads(answer.stdout)["labels"]]
        assert len(scores) == 2
        assert all(low <= score <= high for score in scores)
