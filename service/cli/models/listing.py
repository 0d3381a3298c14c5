"""``tubelet models list``: the models of a server, or of this installation."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tubelet.service.client import AsyncClient, Model
from tubelet.service.config.config import Config
from tubelet.service.wire.answer import activation_from_proto

if TYPE_CHECKING:
    from tubelet.models.repository.repository import ModelStore
    from tubelet.models.spec import ModelSpec

_errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
# As wide as needed, however narrow the terminal: a cut name is of no use.
_table = Console(highlight=False, markup=False, width=1000)


async def print_models(server: str | None, config: Config, *, as_json: bool) -> None:
    """Print the models of a server, or of this installation; loaded ones come first.

    Raises:
        tubelet.service.client.ServerError: the server does not answer.
    """
    rows = await _server_models(server, config) if server else _store_models(config)
    rows.sort(key=lambda row: not row["loaded"])
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table("model", "version", "family", "labels", "size", "licence", "top 1", "loaded", box=None)
    for row in rows:
        table.add_row(
            row["model"],
            row["version"],
            row["family"],
            str(len(row["labels"])),
            row["size"],
            row["licence"],
            "".join(f"{figure['top1']:.3f}" for figure in row["accuracy"][:1]),
            "default" if row["default"] else "yes" if row["loaded"] else "no",
        )
    _table.print(table)


def open_store(config: Config) -> "ModelStore":
    """Return the models of this installation; report broken ones, and a missing store, on standard error."""
    # Imported late: listing a server's models does not need torch, whose import takes seconds.
    from tubelet.models.repository.repository import ZOO, ModelStore
    from tubelet.service.server.model_manager import MissingModels, check_folder

    try:
        check_folder(config.models)
    except MissingModels as error:
        _errors.print(f"only the embedded models are listed: {error}")
    store = ModelStore(ZOO, config.models.store)
    for problem in store.broken:
        _errors.print(f"left out: {problem}")
    return store


def spec_json(spec: "ModelSpec") -> dict[str, Any]:
    """Return the object that ``--json`` prints for a model."""
    return {
        "model": spec.name,
        "version": spec.version,
        "family": spec.family,
        "description": spec.description,
        "labels": list(spec.labels),
        "activation": spec.activation,
        "size": f"{spec.preprocessing.width}x{spec.preprocessing.height}",
        "licence": spec.licence,
        "accuracy": [asdict(each) for each in spec.accuracy],
        "source": spec.provenance.source if spec.provenance else "",
        "revision": spec.provenance.revision if spec.provenance else "",
    }


async def _server_models(server: str, config: Config) -> list[dict[str, Any]]:
    """Return the models of a server; ``loaded`` are those that answer requests."""
    async with AsyncClient(server, tls=config.client.chosen, token=config.client.chosen_token) as client:
        loaded, not_loaded = await client.models(), await client.models_not_loaded()
    return [_model_json(model) | {"loaded": True} for model in loaded] + [
        _model_json(model) | {"loaded": False} for model in not_loaded
    ]


def _model_json(model: Model) -> dict[str, Any]:
    """Return the object of ``spec_json`` for a server's model."""
    return {
        "model": model.name,
        "version": model.version,
        "family": model.family,
        "description": model.description,
        "labels": list(model.labels),
        "activation": activation_from_proto(model.activation).value,
        "size": f"{model.width}x{model.height}",
        "licence": model.licence,
        "accuracy": [
            {"dataset": each.dataset, "top1": each.top1, "note": each.note} for each in model.accuracy
        ],
        "source": model.source,
        "revision": model.revision,
        "default": model.is_default,
    }


def _store_models(config: Config) -> list[dict[str, Any]]:
    """Return the models of this installation; ``loaded`` are those that a server would load."""
    from tubelet.models.errors import BrokenModel, UnknownModel
    from tubelet.service.server.model_manager import wanted_entries

    store = open_store(config)
    try:
        default, *others = (entry.spec for entry in wanted_entries(store, config.models))
    except (UnknownModel, BrokenModel) as error:
        _errors.print(f"models.default is {config.models.default!r}; no server starts with it: {error}")
        return [spec_json(spec) | {"default": False, "loaded": False} for spec in store.specs()]
    return [
        spec_json(spec) | {"default": spec == default, "loaded": spec in (default, *others)}
        for spec in store.specs()
    ]
