"""Options that several commands share, and the parsing of their values."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tubelet.service.types.model_ref import ModelRef
from tubelet.service.types.target import parse_target

if TYPE_CHECKING:
    from tubelet.service.types.request import Sliding, Views, WholeVideo

EMBEDDING_FILES = (".npz", ".parquet")
"""The suffixes of files of embeddings."""


def _address(server: str | None) -> str | None:
    """Check the value of ``--server``."""
    try:
        if server is not None:
            parse_target(server)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return server


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Configuration file (TOML); deploy/README.md lists its keys."
    ),
]
ServerAddress = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST[:PORT]",
        callback=_address,
        help="Address of a tubelet server; default port 8500. Without it, this process does the work.",
    ),
]
UseTls = Annotated[
    bool, typer.Option("--tls", help="With --server: use TLS, as the other options for it and https:// do.")
]
Ca = Annotated[
    str | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Authorities of the server's certificate (PEM); default: well-known.",
    ),
]
Cert = Annotated[
    str | None,
    typer.Option("--cert", metavar="FILE", help="Own certificate (PEM), for servers that ask for one."),
]
Key = Annotated[str | None, typer.Option("--key", metavar="FILE", help="Private key of --cert (PEM).")]
ServerName = Annotated[
    str | None,
    typer.Option(
        "--server-name",
        metavar="NAME",
        help="Name in the server's certificate; default: --server's host.",
    ),
]
TokenText = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="Token that says who calls; others can read a command line, so better use a file.",
    ),
]
TokenFile = Annotated[
    str | None, typer.Option("--token-file", metavar="FILE", help="File of the token that says who calls.")
]
ModelName = Annotated[
    str, typer.Argument(metavar="NAME[:VERSION]", help="A model; without VERSION, its newest one.")
]
ModelOption = Annotated[
    str,
    typer.Option("--model", metavar="NAME[:VERSION]", help="Model to use; without it, the default model."),
]
ModelVersion = Annotated[
    str, typer.Option("--version", metavar="VERSION", help="Version of the model; the same as NAME:VERSION.")
]
Clips = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Multi-view: average N windows that are spread evenly over the video."
    ),
]
Crops = Annotated[
    int | None,
    typer.Option(
        metavar="1|3", help="Multi-view: crops of each window, 1 (centre) or 3 (along the longer side)."
    ),
]
WholeVideoOption = Annotated[bool, typer.Option("--whole-video", help="One segment for the whole video.")]
Fast = Annotated[
    bool, typer.Option("--fast", help="Take key frames near the exact frames (faster, approximate).")
]
Threshold = Annotated[
    float, typer.Option(min=0, max=1, metavar="SCORE", help="Leave out labels with a lower score.")
]
TopK = Annotated[int, typer.Option(min=1, metavar="N", help="Number of labels, best first.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line; errors, too.")]

_CLIENT_KEYS = ("tls", "ca", "cert", "key", "server_name", "token", "token_file")
_MAX_SECONDS = 1e9  # about thirty years; in nanoseconds, more does not fit into 64 bits


def seconds_in_range(number: float | None) -> float | None:
    """Return ``number``, a time in seconds; reject NaN and huge numbers, which ``float`` accepts."""
    if number is not None and not abs(number) <= _MAX_SECONDS:
        raise typer.BadParameter(f"must be a time of at most {_MAX_SECONDS:,.0f} seconds; found {number:g}")
    return number


Window = Annotated[
    float | None,
    typer.Option(
        callback=seconds_in_range,
        metavar="SECONDS",
        help="Length of a sliding window; default: the model's.",
    ),
]
Stride = Annotated[
    float | None,
    typer.Option(
        callback=seconds_in_range,
        metavar="SECONDS",
        help="Time from one window's start to the next one's; rounded to whole units of the model.",
    ),
]


def client_flags(server: str | None, *values: str | bool | None) -> dict[str, Any]:
    """Return the keys of the configuration's ``client`` table that were given as flags.

    ``values`` are those of ``_CLIENT_KEYS``, in their order.
    """
    flags = zip(_CLIENT_KEYS, values, strict=True)
    given = {key: value for key, value in flags if value not in (None, False)}
    if given and server is None:
        raise typer.BadParameter(f"--{next(iter(given)).replace('_', '-')} needs --server")
    return given


def model_ref(text: str, version: str) -> ModelRef:
    """Parse ``NAME[:VERSION]`` and the value of ``--version``."""
    try:
        return ModelRef.parse(text, version)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def views(clips: int | None, crops: int | None) -> "Views | None":
    """Return the multi-view options; None if neither ``clips`` nor ``crops`` is given."""
    from tubelet.service.types.request import Views

    return None if clips is None and crops is None else Views(clips or 1, 1 if crops is None else crops)


def windowing(
    window: float | None, stride: float | None, clips: int | None, crops: int | None, *, whole_video: bool
) -> "WholeVideo | Sliding | Views":
    """Return how windows are laid over a video, by the flags of a command.

    Raises:
        typer.BadParameter: flags of several ways were given.
    """
    from tubelet.service.types.request import Sliding, WholeVideo

    check_exclusive(
        {"--whole-video": whole_video},
        {"--window": window is not None, "--stride": stride is not None},
        {"--clips": clips is not None, "--crops": crops is not None},
    )
    sliding = WholeVideo() if whole_video else Sliding(nanoseconds(window), nanoseconds(stride))
    return views(clips, crops) or sliding


def check_exclusive(*groups: dict[str, bool]) -> None:
    """Check that flags of at most one group were given; a group maps each flag to whether it was given.

    Raises:
        typer.BadParameter: flags of several groups were given; the message names them.
    """
    given = [" and ".join(flag for flag, is_given in group.items() if is_given) for group in groups]
    first, *others = [flags for flags in given if flags] or [""]
    if others:
        raise typer.BadParameter(f"{first} cannot be combined with {' or '.join(others)}")


def check_embeddings(file: Path | None, others: dict[str, bool]) -> None:
    """Check that ``file`` can be a new file of embeddings; ``others`` are flags that need one.

    Raises:
        typer.BadParameter: it cannot, or it is missing.
    """
    if file is None:
        if given := [flag for flag, is_given in others.items() if is_given]:
            raise typer.BadParameter(f"{' and '.join(given)} needs --embeddings")
    elif file.suffix.lower() not in EMBEDDING_FILES:
        raise typer.BadParameter(f"--embeddings {file} must end with {' or '.join(EMBEDDING_FILES)}")
    elif file.exists():
        raise typer.BadParameter(f"{file} exists already; name another --embeddings, or remove it")


def nanoseconds(seconds: float | None) -> int | None:
    """Convert seconds to nanoseconds; None stays None."""
    return None if seconds is None else round(seconds * 1e9)


def time_range(text: str) -> tuple[int, int]:
    """Parse ``START-END`` in seconds into nanoseconds."""
    start, dash, end = text.partition("-")
    try:
        seconds = float(start), float(end)
        if not dash or not all(abs(each) <= _MAX_SECONDS for each in seconds):
            raise ValueError
        return round(seconds[0] * 1e9), round(seconds[1] * 1e9)
    except ValueError:
        raise typer.BadParameter(
            f"--range must be START-END in seconds, such as 1.5-4; found {text!r}"
        ) from None
