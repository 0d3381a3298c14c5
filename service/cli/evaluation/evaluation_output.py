"""The output of ``tubelet evaluate``: text or JSON, files in its folder, a page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tubelet.service.cli.evaluation.confusion_matrix import draw_confusion
from tubelet.service.cli.evaluation.outcomes import Outcome
from tubelet.service.cli.evaluation.page import evaluation_page, save_page
from tubelet.service.cli.evaluation.report import Report, report_json
from tubelet.service.cli.evaluation.report_text import cost_text, report_text, title


@dataclass(frozen=True, slots=True)
class EvaluationOutput:
    """Where the answers and the report of an evaluation go: a folder, standard output, a page."""

    out: Path | None = None  # None: a folder named after the model
    as_json: bool = False
    html: Path | None = None


def print_report(
    report: Report, outcomes: Sequence[Outcome], run: dict[str, Any], output: EvaluationOutput
) -> None:
    """Write report.json and confusion.png, print the report, and write its page.

    ``run`` has the settings and what the run did: its speed, and the videos that failed.

    Raises:
        OSError: a file cannot be written.
    """
    assert output.out is not None
    draw_confusion(report.labels, report.confusion).save(output.out / "confusion.png")
    print_evaluation(
        run | report_json(report),
        report_text(report),
        "report.json, confusion.png and results.jsonl",
        lambda: evaluation_page(report, outcomes, run),
        output,
    )


def print_evaluation(
    content: dict[str, Any], text: str, files: str, page: Callable[[], str], output: EvaluationOutput
) -> None:
    """Write ``content`` to report.json, print it or ``text``, and write the page if one is asked for.

    ``content`` has the settings of the run and the report. ``files`` names what lies in the folder.

    Raises:
        OSError: a file cannot be written.
    """
    assert output.out is not None
    (output.out / "report.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if output.as_json:
        print(json.dumps(content, ensure_ascii=False))
    else:
        print(f"{_first_line(content)}\n\n{text}\n")
        if cost := cost_text(content):
            print(cost)
        print(f"{files} are in {output.out}")
    if output.html is not None:
        save_page(output.html, page())
        if not output.as_json:
            print(f"the page is {output.html}")


def _first_line(run: dict[str, Any]) -> str:
    """Format the settings of a run, how many videos it classified and skipped, and its speed."""
    rate = "" if run["videos_per_s"] is None else f", {run['videos_per_s']:.2f} videos/s"
    reasons = ", ".join(f"{count} {reason}" for reason, count in run["failures"].items())
    skipped = f"{len(run['skipped'])} skipped" + (f" ({reasons})" if reasons else "")
    return f"{title(run)}: {run['videos']} videos, {skipped}{rate}"
