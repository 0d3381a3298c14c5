"""A model as requests, commands and the configuration name it: NAME, or NAME:VERSION to pin a version."""

from dataclasses import dataclass

_PARTS = 2


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model's name and version. An empty name stands for the default, an empty version for none pinned."""

    name: str = ""
    version: str = ""

    @classmethod
    def parse(cls, text: str, version: str = "") -> "ModelRef":
        """Read NAME or NAME:VERSION; ``version`` is one that was given beside the text.

        Raises:
            ValueError: the text is neither, or names another version than the one beside it.
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
        """Whether the reference names this version; one without a version names all of them."""
        return self.name == name and self.version in ("", version)

    def or_default(self, default: "ModelRef") -> "ModelRef":
        """Fill in the default's name where there is none, and its version where the names are the same.

        A pinned default so pins its model for requests that name the model, too.
        """
        name = self.name or default.name
        return ModelRef(name, self.version or (default.version if name == default.name else ""))
