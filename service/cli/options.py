"""Options that several commands share, and how their values are read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.target import parse_target

if TYPE_CHECKING:
    from tubelet.service.types.request import Views


def _target(server: str | None) -> str | None:
    try:
        return None if server is None else parse_target(server)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A TOML file; see the README.")
]
ServerAddress = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST[:PORT]",
        callback=_target,
        help="A server's address; port 8500 if none is named. Without it, this process answers.",
    ),
]
ModelName = Annotated[
    str, typer.Argument(metavar="NAME[:VERSION]", help="A model, the newest version if none.")
]
ModelOption = Annotated[
    str,
    typer.Option("--model", metavar="NAME[:VERSION]", help="A model and its version; empty: the default."),
]
ModelVersion = Annotated[
    str, typer.Option("--version", metavar="VERSION", help="The model's version, as in NAME:VERSION.")
]
Clips = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Views: windows spread evenly over the video, averaged."),
]
Crops = Annotated[
    int | None,
    typer.Option(metavar="1|3", help="Views: crops of each, 1 (centre) or 3 (along the longer side)."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line; errors, too.")]

_MOST_S = 1e9  # some thirty years; in nanoseconds, far more has no room in 64 bits


def seconds_in_range(number: float | None) -> float | None:
    """Refuse NaN and what is as good as infinite, which ``float`` reads, too."""
    if number is not None and not abs(number) <= _MOST_S:
        raise typer.BadParameter(f"wants seconds, at most {_MOST_S:,.0f} of them; found {number:g}")
    return number


def model_ref(text: str, version: str) -> ModelRef:
    try:
        return ModelRef.parse(text, version)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def views(clips: int | None, crops: int | None) -> "Views | None":
    from tubelet.service.types.request import Views

    return None if clips is None and crops is None else Views(clips or 1, 1 if crops is None else crops)


def check_exclusive(*groups: dict[str, bool]) -> None:
    """Refuse flags of more than one group; each group says of its flags whether they were given.

    Raises:
        typer.BadParameter: it names the flags that were given.
    """
    given = [" and ".join(flag for flag, is_given in group.items() if is_given) for group in groups]
    first, *others = [flags for flags in given if flags] or [""]
    if others:
        verb = "do" if " and " in first else "does"
        raise typer.BadParameter(f"{first} {verb} not go with {' or '.join(others)}")


def nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def time_range(text: str) -> tuple[int, int]:
    start, dash, end = text.partition("-")
    try:
        seconds = float(start), float(end)
        if not dash or not all(abs(each) <= _MOST_S for each in seconds):
            raise ValueError
        return round(seconds[0] * 1e9), round(seconds[1] * 1e9)
    except ValueError:
        raise typer.BadParameter(
            f"--range wants START-END in seconds, such as 1.5-4; found {text!r}"
        ) from None
