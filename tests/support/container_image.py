"""What the Containerfile and pyproject.toml state of the image."""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def user() -> tuple[int, int]:
    """Return the user and the group that the image runs as."""
    ((uid, gid),) = re.findall(r"^USER (\d+):(\d+)$", containerfile(), re.M)
    return int(uid), int(gid)


@cache
def containerfile() -> str:
    """Return the text of the Containerfile."""
    return (ROOT / "deploy" / "Containerfile").read_text()


@cache
def project() -> dict[str, Any]:
    """Return the ``[project]`` table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
