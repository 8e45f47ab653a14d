"""A remote operator who proves that a case gives a shell: a command whose answer is not an echo must come back."""

from __future__ import annotations

import random
import time
from enum import Enum
from pathlib import Path

import msgspec

from live.account import Account
from live.caged import Caged
from live.channels import Channel, NoContactError, Station, Transport, station

HOLD_S = 3.0
"""Time from the start of a case that its shell lives at least, so that an agent has a fair chance to see it."""
HOLD_AFTER_CONTACT_S = 2.0
"""The same from its first contact: interpreters and kernels may need longer than HOLD_S to start."""
LIFE_S = 60.0
"""The longest life of a case."""
ANSWER_S = 10.0
"""The longest time from the first order to its answer."""
_REPEAT_S = 1.0
_FACTOR = 7919


class Speech(str, Enum):
    """The language that the far end understands; `{a}` and `{b}` are added by the interpreter."""

    SH = "echo t$(({a}+{b}))e"
    PYTHON = "print('t%de' % ({a}+{b}), flush=True)"
    PYTHON_SYSTEM = "__import__('os').system('echo t$(({a}+{b}))e')"
    PERL_SYSTEM = "system('echo t$(({a}+{b}))e');"
    LUA = "print('t' .. ({a}+{b}) .. 'e')"
    NODE = "console.log('t' + ({a}+{b}) + 'e')"
    TCL = 'puts "t[expr {{{a}+{b}}}]e"'
    RUBY = 'puts "t#{{{a}+{b}}}e"'


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one case."""

    proved: bool
    pids: frozenset[int]
    contact_s: float | None
    """Seconds from the start of the case to its first contact."""
    said: str
    """What came back, and what the case wrote itself: for the message of a failed test."""
    ended: float
    """Seconds since the epoch."""


def control(account: Account, folder: Path, command: list[str], transport: Transport, speech: Speech) -> Outcome:
    """Run a case in a cage, play its operator, hold the shell for a while, and end everything.

    Args:
        account: Whom the case runs as.
        folder: The case's folder, with what it needs; its output goes there.
        command: The case. HOST, PORT and PORT2 in its environment say where the operator is.
        transport: How they meet.
        speech: What the shell understands.
    """
    with station(transport, folder) as place:
        where = {"HOST": place.host, "PORT": str(place.ports[0]), "PORT2": str(place.ports[-1])}
        with Caged(account, folder, command, where, LIFE_S) as caged:
            contact_s, proved, said = _meet(place, speech, caged)
            output = caged.output()
        return Outcome(
            proved=proved, pids=caged.pids(), contact_s=contact_s, said=f"{said}\n--\n{output}", ended=time.time()
        )


def _meet(place: Station, speech: Speech, caged: Caged) -> tuple[float | None, bool, str]:
    try:
        channel = place.contact()
    except NoContactError as error:
        return None, False, str(error)
    met = time.time()
    proved, said = converse(channel, speech)
    if proved and not _hold(channel, max(caged.started + HOLD_S, met + HOLD_AFTER_CONTACT_S)):
        return met - caged.started, False, f"{said}: the case hung up while its shell was to be held"
    return met - caged.started, proved, said


def converse(channel: Channel, speech: Speech, patience_s: float = ANSWER_S) -> tuple[bool, str]:
    """Give the command until its answer comes; return whether it came, and all that was said."""
    heard = bytearray()
    expected: list[bytes] = []
    deadline = time.monotonic() + patience_s
    repeat = 0.0
    while (now := time.monotonic()) < deadline:
        if now >= repeat:
            a, b = random.randrange(10_000, 1_000_000), random.randrange(1, 10_000) * _FACTOR
            expected.append(b"t%de" % (a + b))
            try:
                channel.send(speech.value.format(a=a, b=b).encode() + b"\n")
            except OSError as error:
                return False, f"{heard!r}: {error}"
            repeat = now + _REPEAT_S
        data = channel.receive(0.1)
        if data is None:
            return False, f"{heard!r}: the case hung up"
        heard += data
        if any(token in heard for token in expected):
            return True, repr(bytes(heard))
    return False, f"{heard!r}: no answer in {patience_s:.1f} s"


def _hold(channel: Channel, until: float) -> bool:
    """Keep the connection, and read it empty, as an operator does who thinks; return whether the shell stayed."""
    while (left := until - time.time()) > 0:
        if channel.receive(min(left, 0.2)) is None:
            return False
    return True
