"""The base class of the configuration's tables."""

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """The base of all tables: frozen, without unknown keys; the text under a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
