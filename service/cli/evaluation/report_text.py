"""The report of an evaluation, and the comparison of two, as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from tubelet.models.costs import Cost, measured_energy
from tubelet.service.cli.evaluation.comparison import Comparison
from tubelet.service.cli.evaluation.measures import BINS, Interval
from tubelet.service.cli.evaluation.outcomes import Outcome
from tubelet.service.cli.evaluation.report import Report
from tubelet.service.report.text import printable

_MAX_CLASSES_AS_TEXT = 20  # of a confusion matrix; more do not fit on a terminal
_MISTAKES = 5
_DISAGREEMENTS = 10


def report_text(report: Report) -> str:
    """Format the report as text; many classes get no confusion matrix."""
    label_width = max(map(len, ("class", *report.labels)))
    lines = [*_summary(report), "", *_class_lines(report, label_width)]
    if len(report.labels) <= _MAX_CLASSES_AS_TEXT:
        lines += ["", *_confusion_lines(report, label_width)]
    if report.mistakes:
        lines += ["", *_mistake_lines(report)]
    return "\n".join(lines)


def comparison_text(found: Comparison) -> str:
    """Format a comparison as text."""
    counts = found.counts
    lines = [
        f"A  {title(found.settings_a)}: {found.videos_a} videos",
        f"B  {title(found.settings_b)}: {found.videos_b} videos",
        "",
        f"top 1 of A  {counts.accuracy_a:6.3f}  (95 %: {interval_text(found.interval_a)})",
        f"top 1 of B  {counts.accuracy_b:6.3f}  (95 %: {interval_text(found.interval_b)})",
        f"B minus A   {counts.difference:+.3f}  (95 %: {interval_text(found.difference_interval, '+')})"
        f"; McNemar's p is {found.mcnemar_p:.3f}",
        f"{counts.videos} common videos: {counts.both} right in both, {counts.only_a} only in A, "
        f"{counts.only_b} only in B, {counts.neither} in neither",
    ]
    label_width = max(map(len, ("class", *(label for label, _ in found.classes))))
    lines += ["", f"{'class':{label_width}}  videos      A      B   B - A"]
    lines += [
        f"{label:{label_width}}  {each.videos:6}  {each.accuracy_a:.3f}  {each.accuracy_b:.3f}  "
        f"{each.difference:+.3f}"
        for label, each in found.classes
    ]
    if disagreements := found.disagreements:
        lines += ["", f"{len(disagreements)} videos get different labels; the surest of them"]
        lines += [
            printable(f"{pair.a.label}: A {_answer(pair.a)}, B {_answer(pair.b)}: {pair.a.video}")
            for pair in disagreements[:_DISAGREEMENTS]
        ]
    return "\n".join(lines)


def seen_note(seen: int, videos: int, model: str) -> str:
    """Say how many of the evaluated videos a model was trained on."""
    return (
        f"{seen} of {videos} clips were in the training of {model}: the figures flatter it; --only unseen "
        "leaves them out"
    )


def multi_label_note(model: str, report: Report) -> str:
    """Say what the figures of a multi-label model mean."""
    note = (
        f"{model} scores each label independently: a video is right at top 1 if its label has the highest "
        "score, however low, although others may be true, too"
    )
    if report.mean_average_precision is not None:
        return f"{note}; mAP is the mean over classes of how well the class's own videos come first"
    return f"{note}; there is no mAP, because some results lack the scores of all labels"


def cost_text(run: Mapping[str, Any]) -> str:
    """Format what a video cost, as far as it was measured; "" if a server did the work."""
    if (found := run["cost_per_video"]) is None:
        return ""
    cost = Cost(**found)
    energy = measured_energy(cost)
    return f"{cost.processor_s:.3g} s of processor time a video, {cost.workers_s:.3g} s of it decoding" + (
        f"; {energy} a video" if energy else ""
    )


def title(settings: Mapping[str, Any]) -> str:
    """Format the settings of an evaluation as its title."""
    return f"{settings['model']} {settings['version']}, {windowing_text(settings)}, {settings['data']}"


def windowing_text(settings: Mapping[str, Any]) -> str:
    """Format the windows of an evaluation."""
    if settings["clips"] is None:
        return "sliding windows"
    return f"{settings['clips']} clips x {settings['crops']} crops"


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
    chance = f"calibrated scores would show up to {found.ece_if_calibrated:.3f} by chance"
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


def _answer(outcome: Outcome) -> str:
    """Format the best label of an outcome, and its score."""
    return f"{outcome.best.name} {outcome.best.score:.3f}"


def _share(share: float | None) -> str:
    """Format a share; None is "-"."""
    return "-" if share is None else f"{share:.3f}"
