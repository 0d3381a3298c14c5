"""The arguments of ``tubelet train``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tubelet.service.cli.errors import report_errors
from tubelet.service.cli.options import ConfigFile, Json, model_ref, seconds_in_range
from tubelet.service.config.config import load_config


def train(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder with a folder for each label, a list (CSV, Parquet or JSON lines): "
            "path,label[,start,end][,group][,split], or a Parquet file of embeddings."
        ),
    ],
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="Name of the model in the store; not with --compare."),
    ] = "",
    version: Annotated[str, typer.Option(metavar="VERSION", help="Version in the store.")] = "1",
    base: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="NAME[:VERSION]",
            help="Model to start from, or none: random weights of --family; default: efficientnet-lite0 "
            "if it is stored, else camera-motion.",
        ),
    ] = None,
    level: Annotated[
        Literal["probe", "temporal", "full"] | None,
        typer.Option(
            metavar="probe|temporal|full",
            help="What is trained: a new head on the frozen model, its temporal stage, too, or all of it; "
            "default: the first of these that the base allows, with --minutes or --epochs the better one of "
            "probe and temporal.",
        ),
    ] = None,
    family: Annotated[
        str,
        typer.Option(metavar="FAMILY", help="With --from none: the family of a small model to train."),
    ] = "",
    variant: Annotated[
        str, typer.Option(metavar="NAME", help="With --family torchvision: one of its models, as r3d_18.")
    ] = "",
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="M", help="Time to take; the number of epochs follows from it."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Epochs to train, instead.")] = None,
    mirror: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(
            metavar="auto|on|off",
            help="Whether windows are mirrored in training; auto: unless a label names a side or a turn.",
        ),
    ] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training, exactly where it was.")
    ] = False,
    window: Annotated[
        float | None,
        typer.Option(
            callback=seconds_in_range,
            metavar="SECONDS",
            help="Length of a window; default: the clips' median length, within the limits of the model.",
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            metavar="P",
            help="Find the score from which on each label is right this often, such as 0.9.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Names for labels that are numbers: a line for each class, from 0, or its number and name.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the page, report.html, and of checkpoints; default: the model's, and one in the "
            "user's state.",
        ),
    ] = None,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve", help="Also measure probes on 25, 50 and 75 % of the clips: does more data help?"
        ),
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Train in each of these ways, each part of the scenes left out in turn, print a table, and "
            "store no model: LEVEL, LEVEL@MODEL, or from random weights FAMILY[:VARIANT].",
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the version if it exists.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Train a model on labelled clips, measure it on scenes that it does not know, and store it."""
    if bool(name) == (compare is not None):
        raise typer.BadParameter("give --name to train a model, or --compare to train several and store none")
    if compare is not None and resume:
        raise typer.BadParameter("--compare stores nothing and starts anew: leave out --resume")
    if minutes is not None and epochs is not None:
        raise typer.BadParameter("give --minutes or --epochs, not both")
    ref = None if base is None else model_ref(base, "")
    with report_errors(as_json=as_json):
        from tubelet.service.cli.train.new_model import Request
        from tubelet.service.cli.train.run import train_model

        request = Request(
            data=data,
            name=name,
            version=version,
            base=ref,
            window_s=window,
            replace=replace,
            level=level or ("full" if ref is not None and ref.name == "none" else "probe"),
            chooses_level=level is None,
            family=family,
            variant=variant,
            epochs=epochs,
            minutes=minutes,
            mirroring=mirror,
            out=out,
            resume=resume,
            precision=precision,
            curve=curve,
            labels=labels,
        )
        if compare is None:
            train_model(request, load_config(config), as_json=as_json)
        else:
            from tubelet.service.cli.train.comparison import compare_trainings, parse_ways

            compare_trainings(request, parse_ways(compare), load_config(config), as_json=as_json)
