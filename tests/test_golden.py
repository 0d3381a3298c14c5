"""The comparison of two commits' answers finds what differs, and nothing else."""

from typing import Any

import pytest

from tests.bench.golden.comparison import compare

ANSWER: dict[str, Any] = {
    "events": [{"segment": {"labels": [{"name": "pan", "score": 0.5}]}}],
    "message": "x",
}


def test_equal_outcomes_have_no_difference() -> None:
    rounded = {"events": [{"segment": {"labels": [{"name": "pan", "score": 0.5 + 1e-6}]}}], "message": "x"}
    assert compare("clip", ANSWER, rounded, messages=True) == []


@pytest.mark.parametrize(
    ("other", "where"),
    [
        ({"name": "tilt", "score": 0.5}, "labels[0].name"),
        ({"name": "pan", "score": 0.5001}, "labels[0].score"),
        ({"name": "pan"}, "labels[0].score"),
    ],
)
def test_a_difference_is_named(other: dict[str, Any], where: str) -> None:
    changed = {"events": [{"segment": {"labels": [other]}}], "message": "x"}
    (line,) = compare("clip", ANSWER, changed, messages=True)
    assert line.startswith(f"clip.events[0].segment.{where}: ")


def test_another_number_of_events_is_one_difference() -> None:
    assert len(compare("clip", ANSWER, ANSWER | {"events": []}, messages=True)) == 1


def test_sentences_are_compared_only_if_asked() -> None:
    reworded = ANSWER | {"message": "y"}
    assert compare("clip", ANSWER, reworded, messages=True) == ["clip.message: 'x' before, 'y' now"]
    assert compare("clip", ANSWER, reworded, messages=False) == []
