"""Access control: finds out who calls, by token or certificate, and whether they may."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from tubelet.models.spec import ModelSpec
from tubelet.service.config.identities import Identities, Identity, unrestricted
from tubelet.service.errors import (
    ModelNotAllowed,
    PriorityNotAllowed,
    RpcNotAllowed,
    Unauthenticated,
    UnknownModel,
    UriNotAllowed,
)
from tubelet.service.rpc.request_stream import Context
from tubelet.service.types.quoting import listed, quoted
from tubelet.service.types.request import Options, Priority
from tubelet.service.types.uri import Uri
from tubelet.service.wire.bearer import AUTHORIZATION, from_headers, is_issued

_NOBODY = (
    "this server wants to know who calls: give a token, by --token-file of the command, token of the Python "
    "client, or the header `authorization: Bearer TOKEN`"
)
_PRIORITIES = tuple(Priority)  # from the lowest to the highest
_NAMES = ("x509_common_name", "x509_subject_alternative_name")  # in a certificate, as gRPC calls them


class Access:
    """Tells the identity of a call. ``identities`` returns those that are known; None: nobody is asked.

    ``name_of`` checks a token of an issuer, and returns the name in it, or raises ValueError; None: such
    tokens are not accepted.
    """

    def __init__(
        self, identities: Callable[[], Identities] | None, name_of: Callable[[str], str] | None = None
    ) -> None:
        self._identities = identities
        self._name_of = name_of

    def identify(self, context: Context) -> Identity:
        """Return who calls. A token is looked at first, the client's certificate if there is none.

        Raises:
            Unauthenticated: nobody that is known.
        """
        certificate = certificate_name(context)
        if self._identities is None:
            return unrestricted(certificate)
        try:
            token = from_headers(_authorization(context))
            identity, problem = self._find(self._identities(), token, certificate)
        except ValueError as error:
            raise Unauthenticated(str(error)) from None
        if identity is None:
            raise Unauthenticated(problem)
        return identity

    def _find(self, known: Identities, token: str | None, certificate: str) -> tuple[Identity | None, str]:
        """Return the identity of the token, else that of the certificate; and what is wrong if it is None.

        Raises:
            ValueError: the token of an issuer is not right.
        """
        if token is None:
            if not certificate:
                return None, _NOBODY
            return known.of_name(certificate), f"this server does not know {quoted(certificate)}"
        if self._name_of and is_issued(token):
            name = self._name_of(token)
            return known.of_name(name), f"this server does not know {quoted(name)}"
        return known.of_token(token), "this server does not know the token, or knows it no more"


def check_rpc(identity: Identity, rpc: str) -> None:
    """Check that ``identity`` may call ``rpc``.

    Raises:
        RpcNotAllowed: it may not.
    """
    if not identity.may_call(rpc):
        raise RpcNotAllowed(f"{identity.name} may not call {rpc}")


@contextmanager
def guard_model(identity: Identity, asked: str) -> Iterator[None]:
    """Look for the model that a client of ``identity`` asked for, by its name; empty is the default model.

    Nobody learns of models that they may not use: not by the kind of the error, nor from a list in it.

    Raises:
        ModelNotAllowed: it may not use any model of this name.
    """
    if asked and not identity.may_use(asked):
        raise _not_allowed(identity)
    try:
        yield
    except UnknownModel as error:
        if identity.allowed.models == "all":
            raise
        message = "this server has not loaded this model, or not this version of it"
        raise UnknownModel(message, field=error.field, **error.metadata) from None


def check_model(identity: Identity, spec: ModelSpec) -> None:
    """Check that ``identity`` may use the model that was found.

    Raises:
        ModelNotAllowed: it may not.
    """
    if not identity.may_use(spec.name, spec.version):
        raise _not_allowed(identity)


def check_uri(identity: Identity, uri: Uri) -> None:
    """Check that ``identity`` may have the server read ``uri``.

    Raises:
        UriNotAllowed: it may not.
    """
    if not identity.may_fetch(uri):
        raise UriNotAllowed(f"{identity.name} may not have this URI read", field="uri")


def limit_priority(identity: Identity, options: Options) -> Options:
    """Return ``options`` with a priority that ``identity`` may have: the default one is lowered to it.

    Raises:
        PriorityNotAllowed: the client asked for a higher priority than the default, and may not.
    """
    highest = identity.quotas and identity.quotas.highest_priority
    if highest is None or _PRIORITIES.index(options.priority) <= _PRIORITIES.index(highest):
        return options
    if options.priority is Priority.NORMAL:
        return replace(options, priority=highest)
    raise PriorityNotAllowed(
        f"{identity.name} may not ask for priority {options.priority.value}; its quota highest_priority is "
        f"{highest.value}",
        field="priority",
        quota="highest_priority",
        limit=highest.value,
        value=options.priority.value,
    )


def _not_allowed(identity: Identity) -> ModelNotAllowed:
    """Make the error for a model that ``identity`` may not use."""
    may = listed(identity.allowed.models) or "no model"
    return ModelNotAllowed(f"{identity.name} may not use this model; it may use: {may}", field="model")


def certificate_name(context: Context) -> str:
    """Return the common name in the client's certificate, else its first alternative one; empty if none."""
    properties = context.auth_context() or {}
    names = (name for key in _NAMES for name in properties.get(key, ()) if name)
    return next((name.decode(errors="replace") for name in names), "")


def _authorization(context: Context) -> list[str]:
    """Return the values of the call's header for tokens."""
    return [str(value) for key, value in context.invocation_metadata() or () if key == AUTHORIZATION]
