"""The report of an evaluation as text."""

from collections.abc import Iterator

from tubelet.service.cli.evaluation.measures import BINS, Interval
from tubelet.service.cli.evaluation.report import Report
from tubelet.service.report.text import printable

_MAX_CLASSES_AS_TEXT = 20  # of a confusion matrix; more do not fit on a terminal
_MISTAKES = 5


def report_text(report: Report) -> str:
    """Format the report as text; many classes get no confusion matrix."""
    label_width = max(map(len, ("class", *report.labels)))
    lines = [*_summary(report), "", *_class_lines(report, label_width)]
    if len(report.labels) <= _MAX_CLASSES_AS_TEXT:
        lines += ["", *_confusion_lines(report, label_width)]
    if report.mistakes:
        lines += ["", *_mistake_lines(report)]
    return "\n".join(lines)


def interval_text(interval: Interval, sign: str = "") -> str:
    """Format an interval; ``sign`` as in a format specification."""
    low, high = interval
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


def _summary(report: Report) -> Iterator[str]:
    """Yield the figures of all videos, with their 95 % intervals."""
    yield f"top 1  {report.top1:.3f}  (95 %: {interval_text(report.top1_interval)})"
    if report.top5 is not None and report.top5_interval is not None:
        yield f"top 5  {report.top5:.3f}  (95 %: {interval_text(report.top5_interval)})"
    if report.mean_average_precision is not None:
        yield f"mAP    {report.mean_average_precision:.3f}"
    found = report.calibration
    chance = f"exact scores would show up to {found.ece_if_calibrated:.3f} by chance"
    yield f"ECE    {found.ece:.3f}  (95 %: {interval_text(found.ece_interval)}), {BINS} bins; {chance}"


def _class_lines(report: Report, label_width: int) -> Iterator[str]:
    """Yield the table of classes."""
    yield f"{'class':{label_width}}  videos  recall  precision     F1"
    for each in report.classes:
        recall, precision = _share(each.recall), _share(each.precision)
        yield f"{each.label:{label_width}}  {each.videos:6}  {recall:>6}  {precision:>9}  {each.f1:.3f}"


def _confusion_lines(report: Report, label_width: int) -> list[str]:
    """Format the matrix: a row for each true label; columns show only numbers, to stay narrow."""
    cell_width = len(str(max(report.confusion.max(), len(report.labels)))) + 2
    numbers = "".join(f"{number:{cell_width}}" for number in range(1, len(report.labels) + 1))
    lines = ["true label (row) by predicted label (column)", " " * (label_width + 4) + numbers]
    for number, (label, row) in enumerate(zip(report.labels, report.confusion, strict=True), 1):
        cells = "".join(f"{count or '.':>{cell_width}}" for count in row)
        lines.append(f"{number:2}  {label:{label_width}}{cells}")
    return lines


def _mistake_lines(report: Report) -> Iterator[str]:
    """Yield the surest mistakes."""
    yield "surest mistakes"
    for each in report.mistakes[:_MISTAKES]:
        yield printable(f"{each.best.score:.3f}  {each.best.name}, not {each.label}: {each.video}")


def _share(share: float | None) -> str:
    """Format a share; None is "-"."""
    return "-" if share is None else f"{share:.3f}"
