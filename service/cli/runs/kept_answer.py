"""What a file of results says of a video that an earlier run classified."""

from dataclasses import dataclass
from typing import Any

from tubelet.service.types.video import NS_PER_S


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The best label of a video and its length, or why it failed."""

    label: str = ""
    score: float = 0.0
    duration_ns: int = 0
    error: str = ""
    has_failed: bool = False

    @classmethod
    def of_json(cls, result: dict[str, Any]) -> "KeptAnswer":
        """Return what a line of results, as ``answer_json`` makes it, says.

        Raises:
            LookupError, TypeError: the line is something else.
        """
        if "error" in result:
            return cls(error=result["error"].get("message", ""), has_failed=True)
        best = next(iter(result.get("labels", ())), {"label": "", "score": 0.0})
        return cls(best["label"], best["score"], round(result.get("duration_s", 0.0) * NS_PER_S))
