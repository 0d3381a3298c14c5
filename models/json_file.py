"""Files of JSON that are written completely or not at all."""

import json
from pathlib import Path


def write_json(file: Path, content: object, indent: int | None = None) -> None:
    """Write ``content`` beside ``file``, then rename it, so that ``file`` is always complete.

    Raises:
        OSError: it cannot be written.
    """
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(file)
