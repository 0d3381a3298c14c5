"""A server with TLS."""

from collections.abc import Iterator

import pytest

from tests.support.secured_server import Secured, serving_by_tls
from tubelet.service.client import Tls


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with serving_by_tls(tmp_path_factory.mktemp("tls")) as secured:
        yield secured


@pytest.fixture
def known(secured: Secured) -> Tls:
    """What a client with a certificate needs."""
    own = secured.clients.issue("alice.example", common_name="alice")
    return Tls(secured.authority.ca, own.certificate, own.key)
