"""``tubelet models export``."""

import json
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal

from tubelet.models.checkpoints.onnx_export import INPUT, OUTPUT, export_onnx
from tubelet.models.errors import CannotExport
from tubelet.service.cli.models.listing import open_store
from tubelet.service.config.config import Config
from tubelet.service.types.model_ref import ModelRef

_errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def export_model(model: ModelRef, config: Config, file: Path, *, overwrite: bool, as_json: bool) -> None:
    """Write a model as the ONNX ``file``, and print the shapes of its input and output.

    Raises:
        UnknownModel, BrokenModel: there is no such model, or it cannot be used.
        CannotExport: the file exists, or the model cannot be exported.
        MissingExtra: a library is not installed.
        OSError: the file cannot be written.
    """
    if file.exists() and not overwrite:
        raise CannotExport(f"{file} exists: choose another name, or give --replace")
    entry = open_store(config).find(model.name, model.version)
    with _errors.status(f"exporting {entry.spec.name}, and checking the file"):
        try:
            apart = export_onnx(entry, file)
        except OSError as error:
            raise OSError(f"cannot write {file}: {error.strerror or error}") from error
    spec, size = entry.spec, entry.spec.preprocessing
    shapes = {
        INPUT: ["windows", spec.sampling.frames_per_window, size.height, size.width, 3],
        OUTPUT: ["windows", len(spec.labels)],
    }
    if as_json:
        report = {"model": spec.name, "version": spec.version, "file": str(file), "apart": apart}
        print(json.dumps(report | {"shapes": shapes}))
        return
    print(f"{spec.name} {spec.version}: {file}, {decimal(file.stat().st_size)}")
    print(f"  {INPUT} {_shape(shapes[INPUT])} uint8, RGB -> {OUTPUT} {_shape(shapes[OUTPUT])} float32")
    print(f"  logits in ONNX Runtime are the same (relative difference {apart:.1e})")


def _shape(sides: list[str | int]) -> str:
    """Format a shape."""
    return f"({', '.join(map(str, sides))})"
