"""The page of a batch: what was classified, what failed and why, the labels, the slowest videos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from tubelet.service.report.page import render_page


@dataclass(frozen=True, slots=True)
class LabelCount:
    """The videos whose best label this is, and the mean of its scores."""

    name: str
    videos: int
    score: float


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The videos that failed for one reason; ``named`` are the URIs and messages of some."""

    reason: str
    videos: int
    named: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SlowRow:
    """A video that took long."""

    uri: str
    duration_s: float
    wall_s: float
    device_s: float

    @property
    def name(self) -> str:
        """The last part of the URI, for people."""
        return unquote(self.uri.rpartition("/")[2], errors="backslashreplace") or self.uri


@dataclass(frozen=True, slots=True)
class BatchPage:
    """The content of the page; ``figures`` are names and texts, ``notes`` sentences below them."""

    title: str
    subtitle: str
    figures: Mapping[str, str]
    notes: Sequence[str]
    labels: Sequence[LabelCount]
    more_labels: int
    failures: Sequence[FailureGroup]
    slowest: Sequence[SlowRow]


def render_batch_page(page: BatchPage) -> str:
    """Return the page as HTML, one file that asks the network for nothing."""
    most = max((each.videos for each in page.labels), default=1)
    return render_page("batch.html", ["table.js"], page=page, most=most)
