"""The fields of what ``tubelet train --json`` prints, as the tables of models/README.md name them."""

import re
from pathlib import Path
from typing import Literal

Table = Literal["object", "figures", "trainings"]

_TITLE = "### What `--json` prints"
_ROW = re.compile(r"^\| (`.+`) \| ([^|]+) \|", re.MULTILINE)
_TABLES: tuple[Table, ...] = ("object", "figures", "trainings")


def documented(table: Table, *kinds: str) -> set[str]:
    """Return the fields of a table that are printed for all, and for these kinds."""
    page = (Path(__file__).parents[2] / "models" / "README.md").read_text()
    section = page.split(_TITLE)[1].split("\n### ")[0]
    found = section.split("| field | printed for | meaning |")[1:]
    assert len(found) == len(_TABLES)
    rows = _ROW.findall(found[_TABLES.index(table)])
    known = {kind for _, kind in rows}
    assert known >= set(kinds), known
    return {name for names, kind in rows if kind in ("all", *kinds) for name in re.findall(r"`(\w+)`", names)}
