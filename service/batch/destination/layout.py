"""The destination of a batch: what it holds, and whether a run may write to it.

_tubelet/batch.json says in how many shards and which format it is written; _tubelet/plans has a file for each
plan. The first one of several runs that start together decides.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tubelet.service.batch.destination.part_files import PartFormat
from tubelet.service.batch.destination.store import Store
from tubelet.service.batch.plan import BatchPlan
from tubelet.service.batch.schema import SCHEMA_VERSION

_OWN = "_tubelet/"
_BATCH, _PLANS = f"{_OWN}batch.json", f"{_OWN}plans"


class DestinationMismatch(Exception):
    """The destination holds rows of another model, of other options, shards or columns, or something else."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a destination is written: the number of shards, the format of parts, the version of the schema."""

    shards: int
    part_format: PartFormat
    schema: int = SCHEMA_VERSION


def read_layout(store: Store) -> Layout | None:
    """Return the layout of a destination; None: no batch was begun there.

    Raises:
        DestinationMismatch: it holds something else, or rows of another schema.
    """
    content = _read(store, _BATCH)
    if content is None:
        # Files of _OWN may be of a run that begins at this moment.
        if any(not name.startswith(_OWN) for name in store.names()):
            raise DestinationMismatch(
                f"{store.name} has files, and none of a batch; name an empty folder, or a new one"
            )
        return None
    layout = Layout(content["shards"], content["format"], content["schema"])
    if layout.schema != SCHEMA_VERSION:
        raise DestinationMismatch(
            f"{store.name} has rows of schema {layout.schema}, and this tubelet writes {SCHEMA_VERSION}; "
            "name another --out"
        )
    return layout


def read_plans(store: Store) -> dict[str, dict[str, Any]]:
    """Return what each plan of a destination asked for, by the name of its folder."""
    found = {}
    for name in sorted(store.names(_PLANS)):
        # Another name is that of a file which a run is writing.
        if name.endswith(".json") and (content := _read(store, name)) is not None:
            found[content["folder"]] = content
    return found


def prepare(store: Store, plan: BatchPlan, layout: Layout, *, may_add: bool) -> None:
    """Check that rows of ``plan`` may be written with ``layout``, and take note of both.

    With ``may_add``, they may be written beside those of other plans.

    Raises:
        DestinationMismatch: they may not.
        OSError: the destination cannot be written.
    """
    if read_layout(store) is None:
        first = {"schema": layout.schema, "shards": layout.shards, "format": layout.part_format}
        with suppress(FileExistsError):  # a run that started together with this one was first
            store.create(_BATCH, _bytes(first | {"plan": _plan_json(plan)}))
    content = _read(store, _BATCH)
    assert content is not None
    _check_conditional(store, content)
    _check_layout(store, layout, Layout(content["shards"], content["format"], content["schema"]))
    known = {content["plan"]["folder"]: content["plan"]} | read_plans(store)
    if plan.folder not in known and not may_add:
        raise DestinationMismatch(
            f"{store.name} has rows of {_difference(plan, content['plan'])}; name another --out, "
            "or add rows beside them with --add-model"
        )
    store.put(f"{_PLANS}/{plan.key}.json", _bytes(_plan_json(plan)))


def _check_conditional(store: Store, content: dict[str, Any]) -> None:
    """Raise DestinationMismatch if the store writes over a file that it was told to create."""
    with suppress(FileExistsError):
        store.create(_BATCH, _bytes(content))
        raise DestinationMismatch(
            f"{store.name} overwrites files that it is told to create (a put with If-None-Match), "
            "so that two runs could double videos; name another --out"
        )


def _check_layout(store: Store, wanted: Layout, found: Layout) -> None:
    """Raise DestinationMismatch if the layouts differ."""
    if found.shards != wanted.shards:
        raise DestinationMismatch(
            f"{store.name} is written in {found.shards} shards, not {wanted.shards}: with another number, "
            f"videos would be classified twice or not at all; use --shard I/{found.shards}"
        )
    if found.part_format != wanted.part_format:
        raise DestinationMismatch(
            f"{store.name} has parts in {found.part_format}; use --format {found.part_format}, "
            "or name another --out"
        )


def _difference(plan: BatchPlan, other: dict[str, Any]) -> str:
    """Say what another plan has that ``plan`` has not."""
    if other["model"] != plan.model:
        return f"{other['model']}, not {plan.model}"
    if other["fingerprint"] != plan.fingerprint:
        return f"another {plan.model}, with fingerprint {other['fingerprint']}, not {plan.fingerprint}"
    theirs, ours = other["options"], plan.settings["options"]
    differing = [f"{key} {theirs.get(key)}, not {ours[key]}" for key in ours if theirs.get(key) != ours[key]]
    return f"other options: {'; '.join(differing)}"


def _plan_json(plan: BatchPlan) -> dict[str, Any]:
    """Return a plan as JSON."""
    return {"key": plan.key, "folder": plan.folder, "model": plan.model} | plan.settings


def _read(store: Store, name: str) -> dict[str, Any] | None:
    """Read a file of JSON; None: it is not there.

    Raises:
        DestinationMismatch: it is something else.
    """
    try:
        return dict(json.loads(store.read(name)))
    except FileNotFoundError:
        return None
    except ValueError:
        raise DestinationMismatch(f"{store.name}/{name} is no file of a batch; name another --out") from None


def _bytes(content: dict[str, Any]) -> bytes:
    """Return JSON as bytes, for people to read."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode()
