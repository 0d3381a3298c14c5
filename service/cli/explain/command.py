"""The arguments of ``tubelet explain``."""

import asyncio
import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.service.cli.errors import report_errors
from tubelet.service.cli.options import ConfigFile, Json, ModelOption, ModelVersion, model_ref
from tubelet.service.cli.runs.video_sources import STANDARD_INPUT
from tubelet.service.config.config import load_config
from tubelet.service.types.uri import is_uri

if TYPE_CHECKING:
    from tubelet.service.types.explanation import ExplainMethod

_METHODS = "relevance, occlusion, rollout or attention"


def explain(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="A video file.")],
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="L[,L2]",
            help="Explain this label everywhere; with L2, what speaks for L rather than L2. "
            "Default: the best label of each segment. Quotes keep a comma: '\"tench, Tinca tinca\"'.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="M[,M...]",
            help=f"How: {_METHODS}. Default: relevance, or occlusion where the model has no relevance.",
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]", help="With attention: layers, from 0. Default: the last on patches."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="N[,N...]", help="With attention: heads, from 0. Default: the mean of all."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for the files. Default: beside the video, NAME-explained."
        ),
    ] = None,
    model: ModelOption = "",
    version: ModelVersion = "",
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Explain what a model looked at in a video, in space and time.

    Writes report.html, the video's page with maps over the picture, and
    overlay.mp4, heads.png and maps.npz. They replace files that tubelet wrote,
    and no others. Several methods, layers or heads take a run each: the page
    has a choice of them, and overlay.mp4 shows the first.
    """
    from tubelet.service.cli.explain.explain import explain_video
    from tubelet.service.cli.explain.questions import Asked

    if video == STANDARD_INPUT or is_uri(video):
        raise typer.BadParameter(f"VIDEO must be a file, since it is read several times; found {video!r}")
    asked = Asked(
        labels=_texts(label, "--label"),
        methods=_methods(method),
        layers=_numbers(layer, "--layer"),
        heads=_numbers(head, "--head"),
    )
    ref = model_ref(model, version)
    with report_errors(as_json=as_json):
        status = asyncio.run(explain_video(video, asked, ref, out, load_config(config), as_json=as_json))
    raise typer.Exit(status)


def _texts(text: str | None, flag: str) -> tuple[str, ...]:
    """Split a list at its commas, but those in double quotes."""
    if text is None:
        return ()
    try:
        parts = tuple(part.strip() for part in next(csv.reader([text], skipinitialspace=True, strict=True)))
    except csv.Error:
        parts = ()
    if not parts or not all(parts):
        raise typer.BadParameter(f"{flag} must be a list such as a,b; found {text!r}")
    return parts


def _methods(text: str | None) -> "tuple[ExplainMethod, ...]":
    """Split a list of methods at its commas."""
    from tubelet.service.types.explanation import EXPLAIN_METHODS

    named = dict.fromkeys(_texts(text, "--method"))
    if unknown := [each for each in named if each not in EXPLAIN_METHODS]:
        raise typer.BadParameter(f"--method must be {_METHODS}; found {unknown[0]!r}")
    return tuple(each for name in named for each in EXPLAIN_METHODS if each == name)


def _numbers(text: str | None, flag: str) -> tuple[int, ...]:
    """Split a list of whole numbers at its commas."""
    try:
        return tuple(int(part) for part in _texts(text, flag))
    except ValueError:
        raise typer.BadParameter(f"{flag} must be whole numbers such as 0,3; found {text!r}") from None
