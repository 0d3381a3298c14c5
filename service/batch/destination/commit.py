"""A commit, a file that names the parts of rows that it adds to a shard."""

import json
from dataclasses import dataclass, field
from typing import Any

from tubelet.service.batch.destination.owner import Owner
from tubelet.service.batch.destination.store import Store

FOLDER = "_tubelet/commits"
"""The folder of all commits; programs that read a folder of Parquet files skip names that begin with _."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed video that a commit has: why, and whether a later run asks again by itself."""

    reason: str
    may_retry: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: the parts that it names, and the ids of the videos that were classified and that failed.

    ``answered`` of these are new, the others are of commits that it replaces. ``shuts_out`` are writers of
    the same run that may commit no more.
    """

    number: int
    owner: Owner
    time: str
    videos: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    failed: dict[str, Failed] = field(default_factory=dict)
    num_segments: int = 0
    replaces: tuple[int, ...] = ()
    answered: int = 0
    shuts_out: tuple[str, ...] = ()

    @property
    def json(self) -> dict[str, Any]:
        """The commit as JSON."""
        failed = {name: [each.reason, each.may_retry] for name, each in self.failed.items()}
        return {
            "number": self.number,
            "owner": self.owner.json,
            "time": self.time,
            "parts": {"videos": self.videos, "segments": self.segments},
            "rows": {"videos": len(self.done) + len(self.failed), "segments": self.num_segments},
            "done": self.done,
            "failed": failed,
            "replaces": self.replaces,
            "answered": self.answered,
            "shuts_out": self.shuts_out,
        }

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> "Commit":
        """Return the commit that ``json`` was made of."""
        return cls(
            number=content["number"],
            owner=Owner.of_json(content["owner"]),
            time=content["time"],
            videos=tuple(content["parts"]["videos"]),
            segments=tuple(content["parts"]["segments"]),
            done=tuple(content["done"]),
            failed={name: Failed(*values) for name, values in content["failed"].items()},
            num_segments=content["rows"]["segments"],
            replaces=tuple(content["replaces"]),
            answered=content.get("answered", 0),  # absent in commits of older versions, as is the next
            shuts_out=tuple(content.get("shuts_out", ())),
        )


def read_commit(store: Store, name: str) -> Commit:
    """Read the commit in a file.

    Raises:
        FileNotFoundError: there is none.
    """
    return Commit.of_json(json.loads(store.read(name)))
