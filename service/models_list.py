"""What ``models list`` does: the models of a server, or of this installation."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from service.client import AsyncClient
from service.config import Config
from service.wire import activation_from_proto

if TYPE_CHECKING:
    from models.contract import ModelSpec
    from models.store import ModelStore

_errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
# As wide as a table wants to be, whatever the terminal: half a name is of no use.
_table = Console(highlight=False, markup=False, width=1000)


async def print_models(server: str | None, config: Config, *, as_json: bool) -> None:
    """
    Raises:
        service.client.ServerError: the server cannot be asked.
    """
    rows = await _server_models(server) if server else _store_models(config)
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table("model", "version", "family", "labels", "size", "licence", "top 1", "", box=None)
    for row in rows:
        table.add_row(
            row["model"],
            row["version"],
            row["family"],
            str(len(row["labels"])),
            row["size"],
            row["licence"],
            "".join(f"{figure['top1']:.3f}" for figure in row["accuracy"][:1]),
            "default" if row["default"] else "",
        )
    _table.print(table)


def open_store(config: Config) -> "ModelStore":
    """The models of this installation; those that cannot be used are named on standard error.

    So is a store that is not there, with which a server would not start.
    """
    # Imported late: the list of a server needs none of torch, which takes seconds.
    from models.store import ZOO, ModelStore
    from service.shelf import NotThere, check_folder

    try:
        check_folder(config.models)
    except NotThere as error:
        _errors.print(f"the embedded models only: {error}")
    store = ModelStore(ZOO, config.models.store)
    for problem in store.broken:
        _errors.print(f"left out: {problem}")
    return store


def spec_json(spec: "ModelSpec") -> dict[str, Any]:
    return {
        "model": spec.name,
        "version": spec.version,
        "family": spec.family,
        "labels": list(spec.labels),
        "activation": spec.activation,
        "size": f"{spec.preprocessing.width}x{spec.preprocessing.height}",
        "licence": spec.licence,
        "accuracy": [asdict(each) for each in spec.accuracy],
        "source": spec.provenance.source if spec.provenance else "",
        "revision": spec.provenance.revision if spec.provenance else "",
    }


async def _server_models(server: str) -> list[dict[str, Any]]:
    async with AsyncClient(server) as client:
        return [
            {
                "model": model.name,
                "version": model.version,
                "family": model.family,
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
            for model in await client.models()
        ]


def _store_models(config: Config) -> list[dict[str, Any]]:
    specs = open_store(config).specs()
    # By version, the newest last: a server answers with that.
    default = [spec for spec in specs if spec.name == config.models.default][-1:]
    return [spec_json(spec) | {"default": spec in default} for spec in specs]
