"""Statuses stay below the size that clients accept, whatever text they quote."""

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from tubelet.service.errors import Overloaded, UnknownModel
from tubelet.service.types.quoting import listed, quoted
from tubelet.service.wire.status import to_status

SOFT_LIMIT_BYTES = 8192  # of all metadata that gRPC takes by default


@given(st.text(), st.text(min_size=1), st.integers(0, 10_000))
def test_status_of_any_text_fits_into_grpc_metadata(head: str, body: str, times: int) -> None:
    text = head + body * times
    status = to_status(UnknownModel(text, field="model", limit=text, value=text))
    details = status.trailing_metadata[0][1]
    assert isinstance(details, bytes)
    percent_encoded = 3 * len(status.details.encode())
    assert percent_encoded + 4 * len(details) / 3 < SOFT_LIMIT_BYTES - 1000  # which the other headers have
    assert Status.FromString(details).message == status.details
    if len(text) <= 250:
        assert status.details == text
    else:
        assert status.details.endswith("…") or len(text.encode()) <= 1000


def test_short_messages_are_not_cut() -> None:
    error = Overloaded("too many", retry_after_s=1.0, limit=1, value="2" * 200)
    assert error.metadata["value"] in str(to_status(error).trailing_metadata[0][1])


@pytest.mark.parametrize(
    ("text", "says"), [("a'b", '"a\'b"'), ("a" * 100, repr("a" * 100)), ("a" * 101, f"'{'a' * 100}…'")]
)
def test_long_quotes_are_cut(text: str, says: str) -> None:
    assert quoted(text) == says


def test_long_lists_are_cut() -> None:
    names = [str(number) for number in range(22)]
    assert listed(names[:20]) == ", ".join(names[:20])
    assert listed(names) == ", ".join(names[:20]) + " and 2 more"
