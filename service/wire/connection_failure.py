"""Sentences for calls that no tubelet server answered: what is wrong with the connection, and what to do.

gRPC tells this only by the text of an error.
"""

import os

import grpc

from tubelet.service.types.target import DEFAULT_PORT
from tubelet.service.types.tls import Tls

SERVER_UNREACHABLE = "SERVER_UNREACHABLE"
"""Reason of a ServerError made by the client: no tubelet server answers at the address."""
CONNECTION_LOST = "CONNECTION_LOST"
"""Reason of a ServerError made by the client: the connection broke during the call."""

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # in the order in which gRPC reads them

# gRPC takes the fourth byte of an HTTP/1 answer for a frame type: P of "HTTP/1.1", O of "<!DOCTYPE".
_SIGNS_OF_HTTP = ("http1.x server", f"got frame type {ord('P')})", f"got frame type {ord('O')})")
_METRICS_PORT = f"this looks like the metrics port; the gRPC port is {DEFAULT_PORT} by default"


def connection_failure(code: grpc.StatusCode, details: str, target: str, tls: Tls | None) -> tuple[str, str]:
    """Return the reason and the message for a call to ``target`` that no tubelet server answered."""
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return (
            SERVER_UNREACHABLE,
            f"the server at {target} is not a tubelet server of this version: {details}",
        )
    if any(sign in details for sign in _SIGNS_OF_HTTP):
        return SERVER_UNREACHABLE, f"{target} answers HTTP, not gRPC: {_METRICS_PORT}"
    if "Failed parsing HTTP/2" in details:
        return SERVER_UNREACHABLE, f"the server at {target} is not a tubelet server: it does not speak gRPC"
    if "failed to connect" in details:
        return SERVER_UNREACHABLE, _tls_failure(details, target, tls) or _no_answer(target)
    if "resolving" in details or "resolution" in details:
        host = target.rpartition(":")[0]
        return SERVER_UNREACHABLE, f"the name {host} of the server {target} cannot be resolved"
    return CONNECTION_LOST, f"the connection to {target} was lost: {details}"


def _no_answer(target: str) -> str:
    """Say that nothing answers, with a hint at the variable that makes gRPC use a proxy, if one does."""
    proxy = next((name for name in _PROXIES if os.environ.get(name)), None)
    hint = f"{proxy} is set: no_proxy must name servers that are not behind that proxy" if proxy else ""
    return f"no tubelet server answers at {target}; {hint or 'is `tubelet serve` running?'}"


def _tls_failure(details: str, target: str, tls: Tls | None) -> str:
    """Say what TLS, or its absence, has to do with a connection that failed; empty if it has nothing to."""
    if "WRONG_VERSION_NUMBER" in details:
        return f"the server at {target} does not speak TLS; call it without --tls, --ca and https://"
    if "ALPN" in details:
        return f"{target} speaks TLS, but not gRPC: {_METRICS_PORT}"
    whose = f"the certificate of the server at {target}"
    if "certificate has expired" in details:
        return f"{whose} has expired; whoever runs it must renew it"
    if "certificate is not yet valid" in details:
        return f"{whose} is not valid yet; is the clock of this machine right?"
    if "CERTIFICATE_VERIFY_FAILED" in details:
        known = "the well-known authorities" if tls is None or tls.ca is None else os.fspath(tls.ca)
        return f"{whose} is not signed by {known}; --ca FILE names the authority that signed it"
    if "Hostname Verification" in details:
        name = (tls and tls.server_name) or target.rpartition(":")[0]
        return f"{whose} is not for {name}; call it by a name that is in it, or give that by --server-name"
    if "Socket closed" in details or "Connection reset" in details:
        return f"the server at {target} closed the connection; {_hint_at_closed(tls)}"
    return ""


def _hint_at_closed(tls: Tls | None) -> str:
    """Say what may be wrong where a server closes a connection at once, without a reason."""
    if tls is None:
        return "if it speaks TLS, call it with --tls, and --ca FILE for its authority"
    if tls.cert is None:
        return "if it wants a certificate of its clients, --cert and --key give one"
    return f"it may not know the authority of {os.fspath(tls.cert)}, or that has expired"
