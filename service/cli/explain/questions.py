"""The questions of ``tubelet explain``: what its arguments ask of the pipeline, a run each; the answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest

import typer

from tubelet.service.report.maps.tracks import MapTrack, difference, map_track
from tubelet.service.types.explanation import (
    METHODS_OF_LABELS,
    ExplainedVideo,
    ExplainMethod,
    ExplainOptions,
    MapQuestion,
)

_MAX_LABELS = 2
DEFAULT_METHOD: ExplainMethod = "relevance"
FALLBACK_METHOD: ExplainMethod = "occlusion"
"""The method of families that do not have the default one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the arguments ask for; empty where they say nothing."""

    labels: tuple[str, ...] = ()
    methods: tuple[ExplainMethod, ...] = ()
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.labels) > _MAX_LABELS:
            raise typer.BadParameter(f"--label takes one label, or two to compare; found {len(self.labels)}")
        only_labelless = self.methods and not set(self.methods) & set(METHODS_OF_LABELS)
        if self.labels and only_labelless:
            raise typer.BadParameter(
                f"--label belongs to {' and '.join(METHODS_OF_LABELS)}: maps of {' and '.join(self.methods)} "
                "are the same for all labels"
            )
        if (self.layers or self.heads) and "attention" not in self.methods:
            raise typer.BadParameter("--layer and --head need --method attention")

    def runs(self, default: ExplainMethod = DEFAULT_METHOD) -> list[ExplainOptions]:
        """Return what is asked of the pipeline, a run each; ``default`` is the method if none is named.

        Two labels are explained in two runs, each against the other, one after the other.
        """
        return [run for method in self.methods or (default,) for run in self._of_method(method)]

    def _of_method(self, method: ExplainMethod) -> Iterator[ExplainOptions]:
        """Yield the runs of one method."""
        if method in METHODS_OF_LABELS:
            if len(self.labels) == _MAX_LABELS:
                first, second = self.labels
                yield ExplainOptions(method, (first,), against=second)
                yield ExplainOptions(method, (second,), against=first)
            else:
                yield ExplainOptions(method, self.labels)
        elif method == "attention":
            for layer, head in product(self.layers or (None,), self.heads or (None,)):
                yield ExplainOptions(method, layer=layer, head=head)
        else:
            yield ExplainOptions(method)


@dataclass(frozen=True, slots=True)
class ExplainedRun:
    """A run, and what the pipeline answered."""

    asked: ExplainOptions
    answer: ExplainedVideo

    @property
    def question(self) -> MapQuestion:
        """The question of the whole run; without a label, each segment's best one was explained."""
        asked = self.asked
        (label,) = asked.labels or (None,)
        return MapQuestion(asked.method, label, asked.against, asked.layer, asked.head)

    @property
    def track(self) -> MapTrack:
        """The maps of the run, as they are shown over time."""
        return map_track(self.answer.maps, self.question)


def tracks_of(runs: Sequence[ExplainedRun]) -> list[MapTrack]:
    """Return the tracks of all runs; before those of two labels against each other, their difference."""
    tracks = list[MapTrack]()
    for run, following in zip_longest(runs, runs[1:]):
        if following is not None and (run.asked.against,) == following.asked.labels:
            tracks.append(difference(run.track, following.track))
        tracks.append(run.track)
    return tracks
