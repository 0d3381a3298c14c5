"""tubelet: class labels for videos and their time segments, over gRPC or in this process."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tubelet.service.batch.ray.dataset import classify_dataset
    from tubelet.service.client import AsyncClient, Client, ServerError
    from tubelet.service.in_process import classify, explain
    from tubelet.service.types.embeddings import EmbeddingLevel, Embeddings
    from tubelet.service.types.explanation import ExplainedVideo, ExplainOptions, SegmentMap
    from tubelet.service.types.request import Options, Priority, Sliding, Views, WholeVideo, ranges_of_seconds
    from tubelet.service.types.result import Classification, Label, Segment
    from tubelet.service.types.tls import Tls
    from tubelet.service.types.token import Token
    from tubelet.service.types.video import Thumbnail

_HOMES = {
    "AsyncClient": "tubelet.service.client",
    "Client": "tubelet.service.client",
    "ServerError": "tubelet.service.client",
    "classify": "tubelet.service.in_process",
    "classify_dataset": "tubelet.service.batch.ray.dataset",
    "explain": "tubelet.service.in_process",
    "EmbeddingLevel": "tubelet.service.types.embeddings",
    "Embeddings": "tubelet.service.types.embeddings",
    "ExplainedVideo": "tubelet.service.types.explanation",
    "ExplainOptions": "tubelet.service.types.explanation",
    "SegmentMap": "tubelet.service.types.explanation",
    "Options": "tubelet.service.types.request",
    "Priority": "tubelet.service.types.request",
    "Sliding": "tubelet.service.types.request",
    "Views": "tubelet.service.types.request",
    "WholeVideo": "tubelet.service.types.request",
    "ranges_of_seconds": "tubelet.service.types.request",
    "Classification": "tubelet.service.types.result",
    "Label": "tubelet.service.types.result",
    "Segment": "tubelet.service.types.result",
    "Thumbnail": "tubelet.service.types.video",
    "Tls": "tubelet.service.types.tls",
    "Token": "tubelet.service.types.token",
}

__all__ = [
    "AsyncClient",
    "Classification",
    "Client",
    "EmbeddingLevel",
    "Embeddings",
    "ExplainOptions",
    "ExplainedVideo",
    "Label",
    "Options",
    "Priority",
    "Segment",
    "SegmentMap",
    "ServerError",
    "Sliding",
    "Thumbnail",
    "Tls",
    "Token",
    "Views",
    "WholeVideo",
    "classify",
    "classify_dataset",
    "explain",
    "ranges_of_seconds",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import tubelet`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        extra = "ray" if str(error.name).partition(".")[0] in ("ray", "pyarrow") else "serve"
        needs = f"tubelet.{name} needs {error.name}, which is not installed: pip install 'tubelet[{extra}]'"
        raise ModuleNotFoundError(needs, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
