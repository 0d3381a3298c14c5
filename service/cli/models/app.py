"""``tubelet models``: declares its commands and their arguments, and calls the code that does the work."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from tubelet.service.cli.errors import report_errors
from tubelet.service.cli.help import Commands, examples
from tubelet.service.cli.options import (
    Ca,
    Cert,
    ConfigFile,
    Json,
    Key,
    ModelName,
    ModelVersion,
    ServerAddress,
    ServerName,
    TokenFile,
    TokenText,
    UseTls,
    client_flags,
    model_ref,
    seconds_in_range,
)
from tubelet.service.config.config import load_config

models_app = Commands(help="List, import, check, export and remove models.")


@models_app.command(
    "list", epilog=examples("tubelet models list", "tubelet models list --server localhost:8500 --json")
)
def list_models(
    server: ServerAddress = None,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    server_name: ServerName = None,
    token: TokenText = None,
    token_file: TokenFile = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """List the models of a server, or of this installation."""
    from tubelet.service.cli.models.listing import print_models

    client = client_flags(server, tls, ca, cert, key, server_name, token, token_file)
    with report_errors(as_json=as_json):
        asyncio.run(print_models(server, load_config(config, client=client), as_json=as_json))


@models_app.command(
    "import",
    epilog=examples(
        "tubelet models import hf:MCG-NJU/videomae-base-finetuned-kinetics",
        "tubelet models import torchvision:r3d_18 --weights mine.pth --labels mine.txt",
    ),
)
def import_model(
    source: Annotated[
        str,
        typer.Argument(
            help=r"hf:ORG/NAME\[@REVISION], torchvision:NAME[:WEIGHTS], efficientnet-lite0, a folder, a file."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in the store; default: the source's.")
    ] = None,
    version: Annotated[str, typer.Option(metavar="VERSION", help="Version in the store.")] = "1",
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with one label a line, or imagenet-1k, or kinetics-400."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With torchvision:NAME: the state dict of your fine-tuned model."),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="softmax, or sigmoid for independent labels; default: the checkpoint's.",
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Licence; default: the source's, or unknown.")
    ] = None,
    description: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Description; default: the source's.")
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            callback=seconds_in_range,
            metavar="SECONDS",
            help="Length of a window; default: the checkpoint's, or its family's.",
        ),
    ] = None,
    inflate_to: Annotated[
        str | None,
        typer.Option("--inflate-to", metavar="factorised", help="Make a video model of an image ViT."),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --inflate-to: frames in a window; default: 32."),
    ] = None,
    tubelet: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --inflate-to: frames in a tubelet; default: 2."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the version if it exists.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Import a checkpoint of another project into the store, with its labels and preprocessing."""
    from tubelet.service.cli.models import commands

    if activation not in (None, "softmax", "sigmoid"):
        raise typer.BadParameter(f"--activation must be softmax or sigmoid; found {activation!r}")
    if inflate_to not in (None, "factorised"):
        raise typer.BadParameter(f"--inflate-to must be factorised; found {inflate_to!r}")
    if inflate_to is None and (frames, tubelet) != (None, None):
        raise typer.BadParameter("--frames and --tubelet need --inflate-to factorised")
    with report_errors(as_json=as_json):
        commands.import_model(
            source,
            load_config(config),
            name=name,
            version=version,
            labels=labels,
            weights=weights,
            activation=activation,
            licence=licence,
            description=description,
            window_s=window,
            inflated=None if inflate_to is None else (frames or 32, tubelet or 2),
            overwrite=replace,
            as_json=as_json,
        )


@models_app.command(
    "verify", epilog=examples("tubelet models verify camera-motion", "tubelet models verify mine:2")
)
def verify_model(
    name: ModelName, version: ModelVersion = "", config: ConfigFile = None, as_json: Json = False
) -> None:
    """Check that a model's files and logits are as they were written; exit status 1 if not."""
    from tubelet.service.cli.models import commands

    with report_errors(as_json=as_json):
        same = commands.verify_model(model_ref(name, version), load_config(config), as_json=as_json)
    raise typer.Exit(0 if same else 1)


@models_app.command(
    "export",
    epilog=examples(
        "tubelet models export camera-motion --onnx camera-motion.onnx",
        "tubelet models export mine:2 --onnx mine.onnx --replace",
    ),
)
def export_model(
    name: ModelName,
    onnx: Annotated[
        Path,
        typer.Option(
            "--onnx", metavar="FILE", dir_okay=False, help="ONNX file: frames of windows to logits."
        ),
    ],
    version: ModelVersion = "",
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the file if it exists.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Write a model as an ONNX file, with its labels and sampling, and check its logits in ONNX Runtime."""
    from tubelet.service.cli.models.exporting import export_model

    with report_errors(as_json=as_json):
        export_model(model_ref(name, version), load_config(config), onnx, overwrite=replace, as_json=as_json)


@models_app.command(
    "show", epilog=examples("tubelet models show camera-motion", "tubelet models show camera-motion --json")
)
def show_model(
    name: ModelName, version: ModelVersion = "", config: ConfigFile = None, as_json: Json = False
) -> None:
    """Print all that is known about a model of this installation."""
    from tubelet.service.cli.models import commands

    with report_errors(as_json=as_json):
        commands.show_model(model_ref(name, version), load_config(config), as_json=as_json)


@models_app.command(
    "remove",
    epilog=examples("tubelet models remove mine:1", "tubelet models remove mine --all-versions --yes"),
)
def remove_model(
    name: Annotated[str, typer.Argument(metavar="NAME[:VERSION]", help="A model of the store.")],
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Remove all versions of NAME.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Remove a version of a model from the store, for good."""
    from tubelet.service.cli.models import commands

    model = model_ref(name, "")
    if all_versions and model.version:
        raise typer.BadParameter("--all-versions needs a NAME without a version")
    with report_errors(as_json=as_json):
        settings = load_config(config)
        commands.remove_model(model, settings, all_versions=all_versions, is_confirmed=yes, as_json=as_json)
