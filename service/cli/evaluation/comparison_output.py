"""The output of ``tubelet evaluate --compare``: text, JSON, and the values that its page shows."""

import json
from pathlib import Path
from typing import Any

from tubelet.service.cli.evaluation.comparison import (
    Comparison,
    Pair,
    compare,
    comparison_json,
    read_evaluation,
)
from tubelet.service.cli.evaluation.page import MAX_CLIPS, encode_thumbnails, left_out, save_page, shorten
from tubelet.service.cli.evaluation.report_text import comparison_text, windowing_text
from tubelet.service.cli.runs.output_paths import check_paths
from tubelet.service.report.page import render_page


def print_comparison(a: Path, b: Path, html: Path | None, *, as_json: bool) -> None:
    """Compare the evaluations in two folders, print what was found, and write it as a page.

    Raises:
        InvalidComparison: they cannot be read, or have no video in common, or other labels.
        OSError: ``html`` cannot be written.
    """
    if html is not None:
        check_paths([html])
    found = compare(read_evaluation(a), read_evaluation(b))
    if as_json:
        print(json.dumps(comparison_json(found), ensure_ascii=False))
    else:
        print(comparison_text(found))
    if html is not None:
        save_page(html, comparison_page(found))
        if not as_json:
            print(f"\nthe page is {html}")


def comparison_page(found: Comparison) -> str:
    """Return the page of a comparison; videos with equal labels come last in what a small page holds."""
    clips = [*found.disagreements, *(pair for pair in found.pairs if not pair.disagrees)][:MAX_CLIPS]
    thumbnails = [pair.a.thumbnail or pair.b.thumbnail for pair in clips]
    pictures = encode_thumbnails(thumbnails)
    return render_page(
        "comparison.html",
        ["table.js", "clips.js", "comparison.js"],
        found=found,
        sides=[_side(found.settings_a), _side(found.settings_b)],
        labels=[shorten(label) for label, _ in found.classes],
        left_out=left_out(len(found.pairs), thumbnails, pictures),
        data=_data(found, clips, pictures),
    )


def _side(settings: dict[str, Any]) -> dict[str, str]:
    """Return the title and the facts of one of the evaluations."""
    return {
        "title": f"{settings['model']} {settings['version']}",
        "facts": f"{windowing_text(settings)}, {settings['data']}",
    }


def _data(found: Comparison, clips: list[Pair], pictures: list[str]) -> dict[str, Any]:
    """Return the labels, those of the classes first, and the clips with pictures."""
    names = [label for label, _ in found.classes]
    predicted = {name for pair in clips for name in (pair.a.best.name, pair.b.best.name)}
    names += sorted(predicted - set(names))
    index_of = {name: index for index, name in enumerate(names)}
    return {
        "labels": [shorten(name) for name in names],
        "videos": found.counts.videos,
        "clips": [
            {
                "name": shorten(pair.a.video),
                "true": index_of[pair.a.label],
                "a": index_of[pair.a.best.name],
                "b": index_of[pair.b.best.name],
                "scores": [round(pair.a.best.score, 4), round(pair.b.best.score, 4)],
                "picture": picture,
            }
            for pair, picture in zip(clips, pictures, strict=True)
        ],
    }
