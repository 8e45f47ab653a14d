"""What is kept for calls without an end is bounded, and each is told in the end."""

from __future__ import annotations

import types

from kernel.test_requests import head
from nbsentinel_kernel.calls import OPEN_LIMIT, Call, Calls


def test_calls_that_never_end() -> None:
    """Tasks that are cancelled in the middle of a call leave it behind: the oldest is told, memory stays bounded."""
    told: list[tuple[str, str]] = []
    calls = Calls(lambda call, request_id, via: told.append((call.operation, via)), lambda: b"k")
    service = types.SimpleNamespace(signing_name="s3")
    for number in range(OPEN_LIMIT + 10):
        calls.forget()
        calls.before_call(model=types.SimpleNamespace(name=f"Op{number}", service_model=service), context={})
        calls.before_send(request=types.SimpleNamespace(headers={}, url="http://h/b"))
    assert told == [(f"Op{number}", "botocore") for number in range(10)]
    assert len(calls._sent) == OPEN_LIMIT


def test_a_request_whose_body_never_comes() -> None:
    """A head that waits for its body is told with the next request of its thread, or at the end of the cell."""
    told: list[Call] = []
    calls = Calls(lambda call, request_id, via: told.append(call), lambda: b"k")
    connection = object()
    calls.request(connection, head("POST /", "sts"))
    assert told == []
    calls.request(object(), head("POST /", "sts"))
    assert [call.operation for call in told] == [""]
    calls.cell_ended(failed=False)
    assert len(told) == 2
    calls.request(connection, head("POST /", "sts"))
    calls.request(connection, b"Action=GetCallerIdentity&Version=2011-06-15")
    assert told[2].operation == "GetCallerIdentity"
