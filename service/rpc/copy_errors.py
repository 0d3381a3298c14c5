"""The error of a call whose model cannot be loaded a second time, as explanations need."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tubelet.models.errors import BrokenModel, MissingExtra
from tubelet.models.spec import ModelSpec
from tubelet.service.explanation_errors import CopyNotLoaded

_log = logging.getLogger(__name__)


@contextmanager
def copy_errors(spec: ModelSpec) -> Iterator[None]:
    """Log why the model of ``spec`` cannot be loaded; the client is not told, for paths are confidential.

    Raises:
        CopyNotLoaded: it cannot.
    """
    try:
        yield
    except (BrokenModel, MissingExtra) as error:
        named = f"model {spec.name} {spec.version}"
        _log.error("cannot load %s a second time, to explain it: %s", named, error)
        raise CopyNotLoaded(
            f"the server cannot load {named} a second time, which explanations need; its log says why"
        ) from error
