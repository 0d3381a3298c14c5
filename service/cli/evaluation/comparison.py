"""The comparison of two evaluations, A and B, on the videos that both classified."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tubelet.service.cli.evaluation.measures import (
    Interval,
    difference_interval,
    mcnemar_p,
    wilson_interval,
)
from tubelet.service.cli.evaluation.outcomes import Outcome, read_outcome
from tubelet.service.cli.runs.results_log import ResultsMismatch, read_results
from tubelet.service.report.text import printable

_RESULTS = "results.jsonl"
_NEEDED = "--compare takes two folders that `tubelet evaluate` wrote (--out)"


class InvalidComparison(Exception):
    """Two evaluations cannot be compared, or one of them cannot be read."""


@dataclass(frozen=True, slots=True)
class SavedEvaluation:
    """An evaluation as its folder keeps it: its settings, and the outcomes by video."""

    settings: dict[str, Any]
    outcomes: dict[str, Outcome] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """The outcomes of one video in both evaluations."""

    a: Outcome
    b: Outcome

    @property
    def disagrees(self) -> bool:
        """Whether the two best labels differ."""
        return self.a.best.name != self.b.best.name


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How many of some videos both, one or none of the evaluations have right."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def videos(self) -> int:
        """The number of videos."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def accuracy_a(self) -> float:
        """The share that A has right."""
        return (self.both + self.only_a) / self.videos

    @property
    def accuracy_b(self) -> float:
        """The share that B has right."""
        return (self.both + self.only_b) / self.videos

    @property
    def difference(self) -> float:
        """The accuracy of B minus that of A."""
        return (self.only_b - self.only_a) / self.videos


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two evaluations have in common and where they differ.

    ``classes`` are sorted by the difference of their recalls, B's largest losses first.
    """

    settings_a: dict[str, Any]
    settings_b: dict[str, Any]
    pairs: tuple[Pair, ...] = field(repr=False)
    counts: PairCounts
    interval_a: Interval  # of the accuracy of A
    interval_b: Interval
    difference_interval: Interval
    mcnemar_p: float
    classes: tuple[tuple[str, PairCounts], ...] = field(repr=False)
    videos_a: int  # including those that B does not have
    videos_b: int

    @property
    def disagreements(self) -> list[Pair]:
        """The videos whose best labels differ: those that one has right first, then the surest."""
        differing = [pair for pair in self.pairs if pair.disagrees]
        return sorted(
            differing,
            key=lambda pair: (
                pair.a.is_right == pair.b.is_right,
                -max(pair.a.best.score, pair.b.best.score),
            ),
        )


def read_evaluation(path: Path) -> SavedEvaluation:
    """Read an evaluation from its folder, or from its results.jsonl.

    Raises:
        InvalidComparison: there is none.
    """
    file = path / _RESULTS if path.is_dir() else path
    try:
        settings, outcomes = read_results(file, partial(read_outcome, index_of={}))
    except OSError as error:
        raise InvalidComparison(f"{file} cannot be read: {error.strerror}; {_NEEDED}") from None
    except ResultsMismatch:
        raise InvalidComparison(f"{file} does not hold the answers of an evaluation; {_NEEDED}") from None
    if not outcomes:
        raise InvalidComparison(f"{file} has no answers yet; {_NEEDED}")
    if settings.get("several_labels"):
        raise InvalidComparison(
            f"{file} is of clips with several labels: --compare counts which videos are right, which needs "
            "one label each"
        )
    return SavedEvaluation(settings, outcomes)


def compare(a: SavedEvaluation, b: SavedEvaluation) -> Comparison:
    """Compare two evaluations on their common videos.

    Raises:
        InvalidComparison: they have no video in common, or a video has two true labels.
    """
    common = [name for name in a.outcomes if name in b.outcomes]
    if not common:
        raise InvalidComparison(
            "A and B have no video in common: "
            f"A is of {a.settings.get('data')}, B of {b.settings.get('data')}"
        )
    pairs = tuple(Pair(a.outcomes[name], b.outcomes[name]) for name in common)
    _check_labels(pairs)
    counts = _count(pairs)
    return Comparison(
        a.settings,
        b.settings,
        pairs,
        counts,
        interval_a=wilson_interval(counts.both + counts.only_a, counts.videos),
        interval_b=wilson_interval(counts.both + counts.only_b, counts.videos),
        difference_interval=difference_interval(counts.only_b, counts.only_a, counts.videos),
        mcnemar_p=mcnemar_p(counts.only_b, counts.only_a),
        classes=_by_class(pairs),
        videos_a=len(a.outcomes),
        videos_b=len(b.outcomes),
    )


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as an object for ``--json``."""
    counts = found.counts
    return {
        "a": _side_json(found.settings_a, found.videos_a, counts.accuracy_a, found.interval_a),
        "b": _side_json(found.settings_b, found.videos_b, counts.accuracy_b, found.interval_b),
        "videos": counts.videos,
        "difference": counts.difference,
        "difference_interval": found.difference_interval,
        "mcnemar_p": found.mcnemar_p,
        **_counts_json(counts),
        "classes": [
            {
                "label": label,
                "videos": each.videos,
                "recall_a": each.accuracy_a,
                "recall_b": each.accuracy_b,
                "difference": each.difference,
                **_counts_json(each),
            }
            for label, each in found.classes
        ],
        "disagreements": [
            {
                "video": pair.a.video,
                "label": pair.a.label,
                "a": {"label": pair.a.best.name, "score": pair.a.best.score},
                "b": {"label": pair.b.best.name, "score": pair.b.best.score},
            }
            for pair in found.disagreements
        ],
    }


def _side_json(settings: dict[str, Any], videos: int, top1: float, interval: Interval) -> dict[str, Any]:
    """Return the object of one evaluation; its top 1 is that of the common videos."""
    return settings | {"videos": videos, "top1": top1, "top1_interval": interval}


def _counts_json(counts: PairCounts) -> dict[str, int]:
    """Return the object of the counts."""
    return {
        "both_right": counts.both,
        "only_a_right": counts.only_a,
        "only_b_right": counts.only_b,
        "neither_right": counts.neither,
    }


def _check_labels(pairs: Sequence[Pair]) -> None:
    """Raise InvalidComparison if a video has one true label in A and another one in B."""
    differing = [pair for pair in pairs if pair.a.label != pair.b.label]
    if differing:
        first = differing[0]
        raise InvalidComparison(
            printable(
                f"A and B are of different labels: {first.a.video} is {first.a.label!r} in A and "
                f"{first.b.label!r} in B; so are {len(differing)} of {len(pairs)} common videos"
            )
        )


def _count(pairs: Sequence[Pair]) -> PairCounts:
    """Count which evaluation has the videos right."""
    found = Counter((pair.a.is_right, pair.b.is_right) for pair in pairs)
    return PairCounts(found[True, True], found[True, False], found[False, True], found[False, False])


def _by_class(pairs: Sequence[Pair]) -> tuple[tuple[str, PairCounts], ...]:
    """Count by true label; sort by the difference, equal ones by name with numbers in their order."""
    by_label: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_label.setdefault(pair.a.label, []).append(pair)
    counted = [(label, _count(members)) for label, members in by_label.items()]
    return tuple(sorted(counted, key=lambda each: (each[1].difference, _natural(each[0]))))


def _natural(label: str) -> list[tuple[int, str]]:
    """Return a key that sorts "class 2" before "class 10"."""
    return [(int(digits or 0), text) for digits, text in re.findall(r"(\d+)|(\D+)", label)]
