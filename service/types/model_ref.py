"""References to models in requests, commands and the configuration: NAME, or NAME:VERSION."""

from dataclasses import dataclass

_PARTS = 2


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model's name and version; an empty name means the default model, an empty version any version."""

    name: str = ""
    version: str = ""

    @classmethod
    def parse(cls, text: str, version: str = "") -> "ModelRef":
        """Parse ``text``, NAME or NAME:VERSION; ``version`` is one that was given separately.

        Raises:
            ValueError: ``text`` is neither, or its version differs from ``version``.
        """
        parts = text.split(":")
        if len(parts) > _PARTS or (len(parts) == _PARTS and not all(parts)):
            raise ValueError(f"a model is written NAME or NAME:VERSION, not {text[:100]!r}")
        name, pinned = parts[0], "".join(parts[1:])
        if pinned and version not in ("", pinned):
            raise ValueError(f"the model is {text[:100]!r}, but the version beside it is {version[:100]!r}")
        return cls(name, pinned or version)

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else self.name

    def includes(self, name: str, version: str) -> bool:
        """Whether the reference names this model and version; without a version it names all versions."""
        return self.name == name and self.version in ("", version)

    def or_default(self, default: "ModelRef") -> "ModelRef":
        """Return the reference with the name of ``default`` where it has none.

        The version of ``default`` is taken too, if the names are equal and the reference has no version. So a
        default of NAME:VERSION also applies to requests for NAME.
        """
        name = self.name or default.name
        return ModelRef(name, self.version or (default.version if name == default.name else ""))
