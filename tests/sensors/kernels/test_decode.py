"""From bytes to observations: whatever bytes come, there is an observation that can be recorded, or a refusal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsentinel.events import ApiCall, CellRun, KernelAudit, Millis, Observation, ProcessKey, ServerSessions
from nbsentinel.sensors.kernels import decode
from nbsentinel_kernel.reports import Reports

KEY = ProcessKey(7, 9)
NOW = Millis(1_700_000_000_000)
CELL = ["cell", 0, NOW, 7, "start", "m", "c", 3, "0" * 64, False]
AUDIT = ["audit", 2, NOW, 7, "open", {"Path": "/a", "Access": "read"}, "m", True]
API = ["api", 0, NOW, 7, "s3", "GetObject", "r", "h:1", {"Bucket": "b"}, "0" * 32, "id", "botocore", None, False]
HELLO = ["hello", 0, NOW, 7, 1, "3.7.0", "7.34.0", "6.4.2", False]
SESSIONS = ["sessions", 0, NOW, 0, 1, [[7, [["notebook", "/a", "a"], ["console", "c", "C"]]]], [[8, "1"]], 0]
SAMPLES = (CELL, AUDIT, API, HELLO, SESSIONS)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A message of ours in which one thing is something else."""
    message = list(draw(st.sampled_from(SAMPLES)))
    place = draw(st.integers(0, len(message) - 1))
    how = draw(st.sampled_from(["replace", "drop", "add"]))
    if how == "replace":
        message[place] = draw(values)
    elif how == "drop":
        del message[place]
    else:
        message.insert(place, draw(values))
    return json.dumps(message).encode()


def taken(raw: bytes) -> Observation | None:
    """Return what comes of bytes, None for a refusal or a greeting; everything else raises."""
    try:
        message = decode.read(raw)
    except decode.RefusedError:
        return None
    if isinstance(message, decode.Hello):
        return None
    if isinstance(message, decode.Sessions):
        return decode.served(message, KEY, NOW, lambda pid: ProcessKey(pid, 1))
    found: Observation = decode.observation(message, KEY, NOW, exists=True)
    return found


@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    """Bytes that are no message are refused, and nothing else is raised."""
    assert taken(raw) is None


@given(bent())
def test_any_message(raw: bytes) -> None:
    """A message with something wrong is refused, or what comes of it is printable and about the sender."""
    found = taken(raw)
    if found is not None:
        assert isinstance(found, CellRun | KernelAudit | ApiCall | ServerSessions)
        assert found.key == KEY
        assert NOW - decode.OLDEST_MS <= found.at <= NOW
        text = repr(found)
        assert text.isprintable()
        text.encode()


@given(st.text(max_size=50), st.sampled_from(["\udc80", "\ud800", "\x1b[2J", "\u202e", "\0"]))
def test_texts_are_made_visible(text: str, evil: str) -> None:
    """Control characters, directions and bytes that are no text cannot steer whoever reads them."""
    raw = json.dumps([*AUDIT[:5], {"Path": text + evil}, "m" + evil, True]).encode()
    found = taken(raw)
    assert isinstance(found, KernelAudit)
    assert evil not in found.arguments["Path"] + str(found.message_id)
    found.arguments["Path"].encode()


def test_what_ours_send_is_taken() -> None:
    """The samples are taken as they are: were everything refused, the properties above would hold as well."""
    cell, audit, api, hello, sessions = (taken(json.dumps(sample).encode()) for sample in SAMPLES)
    assert isinstance(cell, CellRun)
    assert isinstance(audit, KernelAudit)
    assert isinstance(api, ApiCall)
    assert hello is None
    assert isinstance(sessions, ServerSessions)
    assert [len(opened) for _, opened in sessions.kernels] == [2]
    assert sessions.terminals == ((ProcessKey(8, 1), "1"),)
    assert (cell.cell_id, cell.execution_count) == ("c", 3)
    assert (audit.arguments, audit.certain) == ({"Path": "/a", "Access": "read"}, True)
    assert (api.operation, api.resources, api.request_id, api.certain) == ("GetObject", {"Bucket": "b"}, "id", False)


def test_not_certain_without_a_cell_or_a_thread() -> None:
    """A thread that is gone, or no cell at all, is never certain."""
    without = decode.read(json.dumps([*AUDIT[:6], None, True]).encode())
    message = decode.read(json.dumps(AUDIT).encode())
    assert isinstance(without, decode.Audit)
    assert isinstance(message, decode.Audit)
    assert not decode.observation(without, KEY, NOW, exists=True).certain
    assert not decode.observation(message, KEY, NOW, exists=False).certain


@pytest.mark.parametrize("at", [0, NOW + 1, 2**53 - 1, NOW - decode.OLDEST_MS - 1])
def test_times_are_not_believed_blindly(at: int) -> None:
    """A time in the future or long ago is replaced by now: nobody hides before the agent's memory."""
    found = taken(json.dumps([*AUDIT[:2], at, *AUDIT[3:]]).encode())
    assert found is not None
    assert found.at == NOW


def test_both_sides_know_the_same_events() -> None:
    """Every audit event that a kernel tells is one that the agent takes, and the other way round."""
    import types

    shell = types.SimpleNamespace(kernel=None)
    ours = set(Reports("/nowhere", shell)._handlers)
    inner = {"os.chdir", "os.fchdir", "http.client.send", "import"}
    inner |= {"_thread.start_new_thread", "_thread.start_joinable_thread"}
    assert ours - inner == set(decode.EVENTS)
