"""``tubelet models import``, ``show``, ``verify`` and ``remove``."""

import json
import math
import sys
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.prompt import Confirm
from rich.table import Table

from tubelet.models.checkpoints.importer import default_name, read_source, store_model
from tubelet.models.checkpoints.inflate import inflate
from tubelet.models.checkpoints.labels import read_labels
from tubelet.models.errors import CannotRemove, UnknownModel
from tubelet.models.flops import window_flops
from tubelet.models.repository.fingerprint import TOLERANCE, fixed_clip_logits, relative_difference
from tubelet.models.repository.model_folder import LABELS, WEIGHTS
from tubelet.models.repository.removal import StoredVersion, remove_version, stored_versions
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.models.runtime.precision import precision_name
from tubelet.models.spec import OutputActivation
from tubelet.service.cli.models.listing import open_store, spec_json
from tubelet.service.config.config import Config, ModelsConfig
from tubelet.service.engine.model_loader import choose_devices
from tubelet.service.report.text import counted
from tubelet.service.types.model_ref import ModelRef

_errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
_out = Console(highlight=False, markup=False, soft_wrap=True)


def import_model(
    source: str,
    config: Config,
    *,
    name: str | None,
    version: str,
    labels: str | None,
    weights: Path | None,
    activation: OutputActivation | None,
    licence: str | None,
    description: str | None,
    window_s: float | None,
    inflated: tuple[int, int] | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Import a checkpoint; ``inflated`` is (frames, tubelet) of a video model to make of it.

    Raises:
        CannotImport: the message says what is wrong; the store is unchanged.
    """
    with _errors.status(f"reading {source}"):
        named = None if labels is None else read_labels(labels)
        foreign = read_source(source, window_s, labels=named, weights=weights)
    foreign = replace(
        foreign,
        activation=activation or foreign.activation,
        licence=licence or foreign.licence,
        description=description or foreign.description,
    )
    if inflated is not None:
        foreign = inflate(foreign, *inflated)
    with _errors.status("writing and checking the model"):
        name = name or default_name(str(weights or source))
        folder = store_model(foreign, config.models.store, name, version, overwrite=overwrite)
    spec = ModelStore(folder.parent.parent).find(folder.parent.name, version).spec
    for warning in foreign.warnings:
        _errors.print(f"warning: {warning}")
    if foreign.untrained:
        _errors.print(
            f"warning: the checkpoint has no weights for {' and '.join(foreign.untrained)}: that part is "
            "random, and must be trained before the labels mean anything"
        )
    if as_json:
        report = {"untrained": foreign.untrained, "warnings": foreign.warnings}
        print(json.dumps({"folder": str(folder), **spec_json(spec), **report}))
    else:
        count = counted(len(spec.labels), "label")
        _out.print(f"{spec.name} {spec.version}: {spec.family}, {count}, in {folder}")


def verify_model(model: ModelRef, config: Config, *, as_json: bool) -> bool:
    """Compare a model's files and logits with those it was written with; return whether they are the same.

    Raises:
        UnknownModel, BrokenModel: there is no such model, or its files were changed.
    """
    entry = open_store(config).find(model.name, model.version)
    entry.verify(LABELS)
    with _errors.status("computing the logits of the fixed clip"):
        apart = relative_difference(fixed_clip_logits(entry.load(), entry.spec.sampling), entry.logits)
    same = apart <= TOLERANCE
    if as_json:
        told = apart if math.isfinite(apart) else None
        report = {"model": entry.spec.name, "version": entry.spec.version, "same": same, "apart": told}
        print(json.dumps(report))
    else:
        _out.print(
            f"{entry.spec.name} {entry.spec.version}: {WEIGHTS} and {LABELS} are unchanged; logits are "
            f"{'' if same else 'NOT '}the same (relative difference {apart:.1e}, {TOLERANCE:g} allowed)"
        )
    return same


def show_model(model: ModelRef, config: Config, *, as_json: bool) -> None:
    """Print all that is known about a model.

    Raises:
        UnknownModel, BrokenModel: there is no such model, or it cannot be used.
    """
    entry = open_store(config).find(model.name, model.version)
    parameters = sum(p.numel() for p in entry.on_meta().parameters())
    flops = window_flops(entry.dims, entry.spec.preprocessing, entry.spec.sampling, len(entry.spec.labels))
    devices = choose_devices(config.engine.device)
    properties = {
        **spec_json(entry.spec),
        "dims": asdict(entry.dims),
        "sampling": asdict(entry.spec.sampling),
        "preprocessing": asdict(entry.spec.preprocessing),
        "parameters": parameters,
        "gflops_a_window": {"spatial": flops.spatial / 1e9, "temporal": flops.temporal / 1e9},
        "device": ",".join(map(str, devices)),
        "precision": precision_name(config.engine.precision, *devices),
        "weights_mib": {"fp32": parameters * 4 / 2**20, "bf16": parameters * 2 / 2**20},
        "fingerprint": entry.fingerprint,
        "folder": str(entry.folder),
    }
    if as_json:
        print(json.dumps(properties))
        return
    table = Table(box=None, show_header=False)
    for key, value in properties.items():
        if value:
            table.add_row(key, _text(value))
    _out.print(table)


def remove_model(
    model: ModelRef, config: Config, *, all_versions: bool, is_confirmed: bool, as_json: bool
) -> None:
    """Remove one version of a model from the store, or all of them.

    Raises:
        tubelet.models.errors.UnknownModel: the store has no such model or version.
        CannotRemove: the model comes with the package, several versions match, it was not confirmed, or the
            file system does not allow it.
    """
    root = config.models.store
    chosen = _chosen(model, root, all_versions=all_versions)
    warnings = _warnings(chosen, config.models)
    for warning in warnings:
        _errors.print(f"warning: {warning}")
    if not is_confirmed:
        _confirm(chosen)
    for version in chosen:
        size_bytes = version.size_bytes
        if left := remove_version(version, root):
            _errors.print(f"warning: {left}")
        if as_json:
            removed = {"model": version.name, "version": version.version, "folder": str(version.folder)}
            left_over = [*warnings, *filter(None, [left])]
            print(json.dumps({**removed, "bytes": size_bytes, "removed": True, "warnings": left_over}))
        else:
            _out.print(f"removed {version}, {decimal(size_bytes)}, from {version.folder}")


def _chosen(model: ModelRef, root: Path, *, all_versions: bool) -> tuple[StoredVersion, ...]:
    """Return the versions to remove."""
    named = stored_versions(root, model.name)
    found = tuple(each for each in named if model.includes(each.name, each.version))
    if not found:
        if any(model.includes(spec.name, spec.version) for spec in ModelStore().specs()):
            raise CannotRemove(
                f"{model} comes with tubelet and cannot be removed; models.default and models.load "
                "choose what is loaded"
            )
        raise UnknownModel(model.name, model.version, tuple(map(str, named)))
    if len(found) > 1 and not all_versions:
        versions = ", ".join(map(str, found))
        raise CannotRemove(
            f"{model} has {len(found)} versions in {root}: {versions}; name one, or add --all-versions"
        )
    return found


def _warnings(removed: Collection[StoredVersion], wanted: ModelsConfig) -> list[str]:
    """Return a warning for each key of the configuration that matches no model after the removal."""
    gone = {version.folder for version in removed}
    store = ModelStore(ZOO, wanted.store)
    left = [spec for spec in store.specs() if store.find(spec.name, spec.version).folder not in gone]
    keys = [
        ("models.default is", wanted.default_ref),
        *(("models.load names", ref) for ref in wanted.load_refs),
    ]
    return [
        f"{key} {str(ref)!r}, which will not exist: no server starts with this configuration"
        for key, ref in keys
        if any(ref.includes(version.name, version.version) for version in removed)
        and not any(ref.includes(spec.name, spec.version) for spec in left)
    ]


def _confirm(removed: Collection[StoredVersion]) -> None:
    """Ask for confirmation in the terminal.

    Raises:
        CannotRemove: the answer is no, or there is no terminal.
    """
    if not sys.stdin.isatty():
        raise CannotRemove("nothing was removed: without a terminal, confirm with --yes")
    listed = ", ".join(f"{version} ({decimal(version.size_bytes)})" for version in removed)
    if not Confirm.ask(f"Remove {listed} for good?", console=_errors, default=False):
        raise CannotRemove("nothing was removed")


def _text(value: object) -> str:
    """Format a value for people; long lists are shortened."""
    match value:
        case dict():
            return ", ".join(f"{key} {_text(each)}" for key, each in value.items() if each is not None)
        case list() if len(value) > 12:
            return f"{len(value)}: {', '.join(map(_text, value[:8]))}, ..."
        case [dict(), *_]:
            return "\n".join(map(_text, value))
        case list() | tuple():
            return ", ".join(map(_text, value))
        case float():
            return f"{value:.6g}"
    return str(value)
