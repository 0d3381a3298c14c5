"""The parts of an evaluation: the dataset, the figures and the picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from tubelet.service.cli.evaluation.confusion_matrix import draw_confusion
from tubelet.service.cli.evaluation.dataset import InvalidDataset, read_labelled, with_model_labels
from tubelet.service.cli.evaluation.outcomes import Outcome, read_outcome
from tubelet.service.cli.evaluation.report import make_report, report_json
from tubelet.service.cli.evaluation.report_text import report_text

LABELS = ("a", "b", "c", "d", "e", "f", "g")


@pytest.mark.parametrize(
    "table",
    [
        "path,label\nx/1.mp4,a\n2.mp4,b\n",
        "x/1.mp4,a\n2.mp4,b\n",
        "\ufefffile,Label,scene\r\nx/1.mp4, a,7\r\n\r\n2.mp4,b,8\r\n",
        '"x/1.mp4","a"\n"2.mp4","b"\n',
    ],
    ids=["header", "none", "as spreadsheets write it", "quoted"],
)
def test_csv_with_and_without_a_header(tmp_path: Path, table: str) -> None:
    (tmp_path / "data.csv").write_text(table, encoding="utf-8", newline="")
    found = [(video.name, Path(video.video), video.label) for video in read_labelled(tmp_path / "data.csv")]
    assert found == [("x/1.mp4", tmp_path / "x/1.mp4", "a"), ("2.mp4", tmp_path / "2.mp4", "b")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "names no videos"),
        (b"path,label\n", "names no videos"),
        (b"1.mp4,a\n2.mp4\n", "line 2: must be path,label; found '2.mp4'"),
        (b"1.mp4 3\n\n2.mp4\n", "line 3: must be path,label; found '2.mp4'"),
        (b"1.mp4 3\n1.mp4 4\n", "names 1.mp4 twice"),
        (b"1.mp4,a\n1.mp4,b\n", "names 1.mp4 twice"),
        (b"\x89PNG\xff\xfe", "neither a folder nor a list"),
    ],
)
def test_invalid_dataset_is_described(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(InvalidDataset, match=says):
        read_labelled(tmp_path / "data")


@pytest.mark.parametrize(
    ("listed", "videos"),
    [
        ("x/1.mp4 0\n2.mp4 3\n", [("x/1.mp4", "0"), ("2.mp4", "3")]),
        ("x/1.mp4\t0\r\n\r\n2.mp4   3", [("x/1.mp4", "0"), ("2.mp4", "3")]),
        ("/d/a clip (1).mp4 12\n/d/b.mp4 0\n", [("/d/a clip (1).mp4", "12"), ("/d/b.mp4", "0")]),
        ("a, b.mp4 1\nc.mp4 2\n", [("a, b.mp4", "1"), ("c.mp4", "2")]),
        ("1.mp4 abseiling\n", [("1.mp4", "abseiling")]),
        # With a comma in each line, it parts them: names of classes may end in a number.
        ("1.mp4,class 1\n2.mp4,class 2\n", [("1.mp4", "class 1"), ("2.mp4", "class 2")]),
        ("1.mp4,0\n2.mp4,1\n", [("1.mp4", "0"), ("2.mp4", "1")]),
    ],
)
def test_lists_of_pyslowfast_and_mmaction2(
    tmp_path: Path, listed: str, videos: list[tuple[str, str]]
) -> None:
    (tmp_path / "val.txt").write_text(listed, newline="")
    found = read_labelled(tmp_path / "val.txt")
    assert [(video.name, video.label) for video in found] == videos
    assert [video.video for video in found] == [str(tmp_path / name) for name, _ in videos]


def test_class_numbers_count_from_0(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("1.mp4 0\n2.mp4 2\n")
    videos = read_labelled(tmp_path / "val.txt")
    assert [video.label for video in with_model_labels(videos, "k3", ("a", "b", "c"))] == ["a", "c"]
    assert [video.label for video in with_model_labels(videos, "k3", ("2", "1", "0"))] == ["0", "2"]  # names
    with pytest.raises(InvalidDataset, match="has class 2, but k2 has the classes 0 to 1"):
        with_model_labels(videos, "k2", ("a", "b"))
    (tmp_path / "val.txt").write_text("1.mp4 0\n2.mp4 b\n")
    with pytest.raises(InvalidDataset, match="k3 has no label '0'"):
        with_model_labels(read_labelled(tmp_path / "val.txt"), "k3", ("a", "b", "c"))


def test_folder_of_an_evaluation_is_not_a_class(tmp_path: Path) -> None:
    for name in ("a/1.mp4", "evaluation/results.jsonl", "evaluation/confusion.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [video.name for video in read_labelled(tmp_path)] == ["a/1.mp4"]


def test_unknown_labels_are_named_with_the_most_similar(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,riding_a_bike\n2,xyz\n3,abseiling\n")
    with pytest.raises(InvalidDataset) as refused:
        with_model_labels(read_labelled(tmp_path / "data.csv"), "k400", ("abseiling", "riding a bike"))
    named, had = str(refused.value).split("; ")
    assert named == "k400 has no label 'riding_a_bike' (closest: 'riding a bike'), 'xyz'"
    assert had == "it has: abseiling, riding a bike"


def outcome(label: str, *predicted: str, score: float = 0.9, video: str = "1.mp4") -> Outcome:
    """Return an outcome; the scores fall from ``score``."""
    labels = [{"label": name, "score": score / (rank + 1)} for rank, name in enumerate(predicted)]
    return read_outcome({"video": video, "label": label, "labels": labels}, {})


def test_report_figures() -> None:
    report = make_report(
        [
            outcome("b", "b", "a", "c", "d", "e"),
            outcome("b", "a", "c", "d", "e", "b"),
            outcome("a", "a", "b", "c", "d", "e"),
            outcome("g", "a", "b", "c", "d", "e"),
        ],
        LABELS,
    )
    assert (report.videos, report.top1, report.top5) == (4, 0.5, 0.75)
    assert report.top1_interval == pytest.approx((0.150, 0.850), abs=1e-3)
    assert report.labels == ("a", "b", "g")  # those that occur, in the model's order
    assert report.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    classes = report_json(report)["classes"]
    keys = ("label", "videos", "predicted", "recall", "precision", "average_precision")
    assert [tuple(each[key] for key in keys) for each in classes] == [
        ("a", 1, 3, 1.0, pytest.approx(1 / 3), None),
        ("b", 2, 1, 0.5, 1.0, None),
        ("g", 1, 0, 0.0, None, None),
    ]
    assert report_text(report).split("\n\n")[2].splitlines()[1:] == [
        "           1  2  3",
        " 1  a      1  .  .",
        " 2  b      1  1  .",
        " 3  g      1  .  .",
    ]


def random_outcomes(videos: int, seed: int) -> tuple[list[Outcome], np.ndarray, np.ndarray]:
    """Return outcomes of a model that is often right, the indices of their true labels, and all scores."""
    random = np.random.default_rng(seed)
    true = random.integers(0, len(LABELS), videos)
    logits = random.normal(size=(videos, len(LABELS)))
    logits[np.arange(videos), true] += 1
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    index_of = {label: index for index, label in enumerate(LABELS)}
    lines = [
        {
            "video": f"{number}.mp4",
            "label": LABELS[true[number]],
            "labels": [{"label": LABELS[each], "score": float(row[each])} for each in np.argsort(-row)],
        }
        for number, row in enumerate(scores)
    ]
    return [read_outcome(line, index_of) for line in lines], true, scores


def test_figures_are_sklearns() -> None:
    outcomes, true, scores = random_outcomes(200, seed=3)
    report = make_report(outcomes, LABELS)
    predicted, classes = scores.argmax(axis=1), range(len(LABELS))
    assert report.top1 == pytest.approx(accuracy_score(true, predicted))
    assert report.top5 == pytest.approx(top_k_accuracy_score(true, scores, k=5, labels=classes))
    assert report.confusion.tolist() == confusion_matrix(true, predicted).tolist()
    figures: Any = precision_recall_fscore_support(true, predicted)
    for found, precision, recall, f1, count in zip(report.classes, *figures, strict=True):
        assert (found.precision, found.recall, found.f1) == pytest.approx((precision, recall, f1))
        assert found.videos == count
    assert report.mean_average_precision == pytest.approx(
        average_precision_score(np.eye(len(LABELS))[true], scores, average="macro")
    )


def test_average_precision_needs_all_scores_of_all_videos() -> None:
    outcomes, _, _ = random_outcomes(20, seed=1)
    without_scores = [*outcomes, outcome("a", "a", "b", "c", "d", "e")]
    assert make_report(outcomes, LABELS).mean_average_precision is not None
    assert make_report(without_scores, LABELS).mean_average_precision is None


def test_mistakes_are_listed_with_the_surest_first() -> None:
    outcomes = [
        outcome("a", "b", score=0.5, video="unsure"),
        outcome("a", "a", score=0.99, video="right"),
        outcome("a", "c", score=0.8, video="sure \x1b[31m"),
    ]
    report = make_report(outcomes, LABELS)
    assert report_json(report)["surest_mistakes"] == [
        {"video": "sure \x1b[31m", "label": "a", "predicted": "c", "score": 0.8},
        {"video": "unsure", "label": "a", "predicted": "b", "score": 0.5},
    ]
    assert report_text(report).splitlines()[-2:] == [
        "0.800  c, not a: sure \\x1b[31m",
        "0.500  b, not a: unsure",
    ]


def test_report_json_has_no_nan() -> None:
    content = report_json(make_report([outcome("a", "a")], LABELS))
    assert json.loads(json.dumps(content, allow_nan=False))["calibration"]["bins"][0] == {
        "from": 0.0,
        "to": pytest.approx(1 / 15),
        "videos": 0,
        "score": None,
        "accuracy": None,
    }


def test_report_on_five_labels_leaves_out_top_5() -> None:
    outcomes = [outcome("a", "b", "a", "c", "d", "e")]
    assert make_report(outcomes, LABELS[:5]).top5 is None
    assert "top 5" not in report_text(make_report(outcomes, LABELS[:5]))
    assert "top 5  1.000" in report_text(make_report(outcomes, LABELS[:6]))


def test_text_report_on_many_classes_leaves_out_the_matrix() -> None:
    labels = tuple(f"class {number}" for number in range(21))
    text = report_text(make_report([outcome(label, label) for label in labels], labels))
    assert "class 20       1   1.000      1.000  1.000" in text
    assert "by predicted" not in text


@pytest.mark.parametrize("classes", [1, 2, 10, 200])
def test_picture_colours_cells_by_share_of_row(classes: int) -> None:
    labels = tuple(f"{number} " + "long " * (number % 20) for number in range(classes))
    counts = np.diag(np.arange(1, classes + 1) * 1000)
    counts[0, -1] = counts[0, 0]
    picture = np.asarray(draw_confusion(labels, counts)).astype(int)
    cell = min(max(960 // classes, 14), 60)
    origin = [size - classes * cell - 16 for size in picture.shape[:2]]
    corners = [
        [picture[origin[0] + y * cell + 2, origin[1] + x * cell + 2] for x in (0, classes - 1)]
        for y in (0, classes - 1)
    ]
    full, empty = (16, 64, 140), (255, 255, 255)
    half = np.add(full, empty) / 2
    expected = [[full]] if classes == 1 else [[half, half], [empty, full]]
    found = np.array(corners)[: len(expected), : len(expected)]
    assert np.abs(found - np.array(expected)).max() <= 1
