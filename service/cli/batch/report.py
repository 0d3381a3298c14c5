"""The page at the end of a batch: ``report.html``, made of all rows of its shard that are committed."""

from collections.abc import Sequence

from tubelet.service.batch.destination.commits import ShardCommits
from tubelet.service.batch.destination.store import Store
from tubelet.service.batch.plan import BatchPlan
from tubelet.service.batch.progress import BatchProgress
from tubelet.service.batch.source.items import Shard
from tubelet.service.batch.summary import BatchSummary
from tubelet.service.cli.batch.display import size_text
from tubelet.service.cli.runs.progress import duration_text
from tubelet.service.report.batch_page import BatchPage, FailureGroup, LabelCount, SlowRow, render_batch_page

_LABELS = 500  # on the page


def write_report(
    store: Store, commits: ShardCommits, plan: BatchPlan, shard: Shard, progress: BatchProgress
) -> str:
    """Write the page of a shard, and return its name in the destination.

    Raises:
        OSError: the rows cannot be read, or the page cannot be written.
    """
    summary = BatchSummary()
    for row in commits.video_rows():
        summary.add(row)
    part = "" if shard.count == 1 else f", shard {shard}"
    page = BatchPage(
        title=plan.model,
        subtitle=f"{store.name}{part}, plan {plan.key}",
        figures=_figures(summary, progress),
        notes=_notes(summary),
        labels=_labels(summary),
        more_labels=max(0, len(summary.labels) - _LABELS),
        failures=[
            FailureGroup(reason, count, summary.named[reason])
            for reason, count in summary.failures.most_common()
        ],
        slowest=[SlowRow(each.uri, each.duration_s, each.wall_s, each.device_s) for each in summary.slowest],
    )
    name = "report.html" if shard.count == 1 else f"report-{shard.name}.html"
    store.put(name, render_batch_page(page).encode(errors="backslashreplace"))
    return name


def _figures(summary: BatchSummary, progress: BatchProgress) -> dict[str, str]:
    """Return the figures at the top."""
    figures = {
        "Classified": f"{summary.classified:,}",
        "Failed": f"{summary.failures.total():,}",
        "Length": _seconds_text(summary.video_s),
        "Read": size_text(summary.read_bytes),
        "Device time": _seconds_text(summary.device_s),
    }
    if progress.ended:
        figures["Videos/s, last run"] = f"{progress.videos_per_s:.3g}"
    return figures


def _seconds_text(seconds: float) -> str:
    """Format a duration, a short one with its fraction."""
    return duration_text(seconds) if seconds >= 60 else f"{seconds:.3g} s"


def _notes(summary: BatchSummary) -> Sequence[str]:
    """Return sentences about the videos that were classified."""
    notes = []
    if summary.warned:
        notes.append(f"{summary.warned:,} of the videos that were classified have warnings, in their rows.")
    if summary.without_label:
        notes.append(f"{summary.without_label:,} videos have no label: no score is above the threshold.")
    return notes


def _labels(summary: BatchSummary) -> list[LabelCount]:
    """Return the most frequent labels."""
    return [
        LabelCount(name, count, summary.scores[name] / count)
        for name, count in summary.labels.most_common(_LABELS)
    ]
