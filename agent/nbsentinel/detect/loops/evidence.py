"""How much a loop of received and executed commands proves: the values, and the weighing as one table.

A program that asks a service for work, runs it and reports back makes the very same system calls as a remote shell. So
three things are weighed: whether the peer gave its orders without being asked, what was executed, and whether the one
who executes is a program somebody installed or a script, a notebook cell, a program of the user's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from itertools import pairwise

import msgspec

from nbsentinel.context.objects import Socket
from nbsentinel.detect.interpreters import Interpreter, InterpreterInput, InterpreterKind
from nbsentinel.events import Confidence, Endpoint, Process, ProcessKey

BRIEF_ORDER = 64
"""Bytes: a command line; a browser's or library's HTTP request is longer."""
SHORT_ORDER = 96
"""Bytes: shorter than an HTTP answer that has a date, or the server's part of a TLS handshake."""
GREETING_PORTS = (21, 22, 23, 25, 110, 119, 143, 465, 587, 3306, 5900)
IDENTICAL_ROUNDS, VARIED_ROUNDS = 2, 3
_SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib", "/opt/", "/snap/", "/nix/")
_PACKAGES = ("/site-packages/", "/dist-packages/", "/node_modules/", "/gems/")
_OWN = ("/opt/ml/",)
"""Where SageMaker keeps what users wrote."""
_INLINE = "ceEr"
"""Last letters of the flags that take code: -c, -lc, -e, -E, -r."""
_NATIVE = ("/usr/", "/bin/", "/sbin/", "/lib", "/snap/", "/nix/")


RUNTIMES = (
    "awk",
    "gawk",
    "mawk",
    "nawk",
    "java",
    "deno",
    "bun",
    "dotnet",
    "mono",
    "guile",
    "Rscript",
    "expect",
    "wish",
)
"""Programs of the system that do what a text of the user's says; those that `ObjectView.image` knows come beside."""


class Orders(str, Enum):
    """How the commands came."""

    UNASKED = "unasked"
    """The peer sent one although nothing had been sent to it since the last answer, or ever."""
    SHORT = "short"
    """The peer spoke second, and said no more than a line."""
    ASKED = "asked"
    """Each came after something was sent: request and reply, or one connection for each question."""


class Owner(str, Enum):
    """What executes the commands."""

    SCRIPT = "script"
    KERNEL = "kernel"
    PROGRAM = "program"
    """An executable outside the system's folders."""
    INSTALLED = "installed"
    """A program of the system, or a script that was installed as part of a package."""


class Variety(str, Enum):
    """How the commands differ."""

    SINGLE = "single"
    IDENTICAL = "identical"
    TEMPLATE = "template"
    """The same program with other arguments: what a loop over files does."""
    DIFFERENT = "different"


class Weight(str, Enum):
    """What the evidence is worth."""

    STRONG = "strong"
    FAIR = "fair"
    WEAK = "weak"


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one loop."""

    orders: Orders
    owner: Owner
    runs_shell: bool
    """Whether a command interpreter was given the commands."""
    captured: bool
    """Whether the output of the commands went back to the one who runs them."""
    rounds: int
    variety: Variety
    initiated: bool | None
    brief: bool
    """Whether each order was no longer than a command line."""
    greeting: bool = False
    """Whether the peer is a service that greets first (mail, FTP, SSH, MySQL, VNC)."""


class LoopVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A process that carries out what a remote peer sends, as far as can be told."""

    process: ProcessKey
    holder: ProcessKey
    """Who holds the connection: the process itself, or one that it is joined to."""
    socket: Socket | None
    peer: Endpoint
    pattern: Pattern
    weight: Weight
    confidence: Confidence


def loop_fields(verdict: LoopVerdict) -> dict[str, object]:
    """Return the fields that rules decide on."""
    pattern = verdict.pattern
    found: dict[str, object] = {
        "RemoteControlled": "loop",
        "LoopEvidence": verdict.weight.value,
        "LoopOrders": pattern.orders.value,
        "LoopOwner": pattern.owner.value,
        "LoopRuns": "shell" if pattern.runs_shell else "programs",
        "LoopOutput": "captured" if pattern.captured else "inherited",
        "LoopCommands": pattern.rounds,
        "LoopVariety": pattern.variety.value,
        "LoopConnection": "own" if verdict.holder == verdict.process else "joined",
        "LoopPeer": str(verdict.peer),
        "DestinationIp": verdict.peer.ip,
        "DestinationPort": verdict.peer.port,
    }
    if pattern.initiated is not None:
        found["Initiated"] = pattern.initiated
    return found


def weigh(pattern: Pattern) -> Weight | None:
    """Return what a pattern is worth, None for one that ordinary programs show all day."""
    if pattern.initiated is False:
        return _weigh_accepted(pattern)
    if pattern.orders is Orders.UNASKED:
        return _weigh_unasked(pattern)
    if pattern.owner is Owner.INSTALLED or not pattern.runs_shell or not pattern.captured:
        return None
    if pattern.orders is Orders.SHORT:
        return Weight.FAIR
    return _weigh_asked(pattern)


def _weigh_accepted(pattern: Pattern) -> Weight | None:
    """A server: its clients always speak first, and many a service runs a program for a request."""
    if pattern.owner is Owner.INSTALLED or not pattern.runs_shell:
        return None
    if pattern.orders is Orders.UNASKED and pattern.brief and pattern.captured:
        return Weight.STRONG
    if pattern.captured and pattern.rounds >= IDENTICAL_ROUNDS and pattern.variety is Variety.DIFFERENT:
        return Weight.FAIR
    return Weight.WEAK


def _weigh_unasked(pattern: Pattern) -> Weight | None:
    """Few services speak first, and those do it once: what follows is asked for."""
    many = pattern.rounds >= IDENTICAL_ROUNDS
    if pattern.owner is Owner.INSTALLED:
        return Weight.FAIR if pattern.runs_shell and not (pattern.greeting and not many) else None
    if pattern.greeting and not many:
        return None
    return Weight.STRONG if pattern.runs_shell or pattern.captured or many else Weight.FAIR


def _weigh_asked(pattern: Pattern) -> Weight | None:
    """Ask, run, report: the only difference to a data pipeline is what is run."""
    identical = VARIED_ROUNDS if pattern.owner is Owner.KERNEL else IDENTICAL_ROUNDS
    if pattern.variety is Variety.IDENTICAL and pattern.rounds >= identical:
        return Weight.FAIR
    if pattern.variety is Variety.DIFFERENT and pattern.rounds >= VARIED_ROUNDS:
        return Weight.FAIR
    if pattern.rounds >= VARIED_ROUNDS or (pattern.variety is Variety.DIFFERENT and pattern.rounds >= IDENTICAL_ROUNDS):
        return Weight.WEAK
    return None


def confidence(pattern: Pattern, weight: Weight) -> Confidence:
    """Return how sure a pattern makes: only orders that were not asked for, given again and again, are certain."""
    if weight is Weight.WEAK:
        return Confidence.LOW
    if weight is Weight.STRONG and pattern.rounds > IDENTICAL_ROUNDS:
        return Confidence.HIGH
    return Confidence.MEDIUM if pattern.orders is not Orders.ASKED else Confidence.LOW


def variety(commands: Iterable[str]) -> Variety:
    """Return how commands differ."""
    texts = list(commands)
    if len(texts) < 2:
        return Variety.SINGLE
    if len(set(texts)) == 1:
        return Variety.IDENTICAL
    return (
        Variety.TEMPLATE
        if len({text.split(maxsplit=1)[0] for text in texts if text.split()}) <= 1
        else (Variety.DIFFERENT)
    )


def owner_kind(process: Process | None, image: str | None) -> Owner:
    """Return what sort of program a process is; one that is not known counts as a script of somebody's own.

    Args:
        process: What is known of it.
        image: Which interpreter it runs, as `ObjectView.image` says.
    """
    if process is None:
        return Owner.SCRIPT
    if process.kernel is not None:
        return Owner.KERNEL
    if image is None and (process.exe or "").rpartition("/")[2] not in RUNTIMES:
        exe = process.exe or ""
        return Owner.INSTALLED if exe.startswith(_NATIVE) or _is_packaged(exe, exe) else Owner.PROGRAM
    script, program = _script(process.argv[1:]), process.argv[0] if process.argv else ""
    return Owner.INSTALLED if script is not None and _is_packaged(script, program) else Owner.SCRIPT


def _script(arguments: tuple[str, ...]) -> str | None:
    """Return the script or module that an interpreter was given, None for code in its arguments or on its input."""
    for flag, argument in pairwise(("", *arguments)):
        if argument == "--eval" or (argument.startswith("-") and argument[-1] in _INLINE):
            return None
        if flag == "-m":
            return f"/usr/module/{argument}"
        if not argument.startswith("-"):
            return argument
    return None


def _is_packaged(path: str, exe: str) -> bool:
    if path.startswith(_OWN):
        return False
    if any(part in path for part in _PACKAGES) or path.startswith(_SYSTEM):
        return True
    folder = path.rpartition("/")[0]
    return folder.endswith("/bin") and folder == exe.rpartition("/")[0]


def command_of(interpreter: Interpreter, argv: tuple[str, ...]) -> tuple[bool, str]:
    """Return whether an image is a command interpreter that was handed a command, and the command.

    A shell that is given a script file runs a program like any other.
    """
    inline = next((after for flag, after in pairwise(argv) if flag.startswith("-") and flag[-1] in _INLINE), None)
    if interpreter.kind is InterpreterKind.SHELL:
        handed = interpreter.input is InterpreterInput.COMMANDS or not interpreter.has_script
        return handed, inline if handed and inline is not None else " ".join(argv)
    if interpreter.kind is InterpreterKind.CODE and interpreter.input is InterpreterInput.ARGUMENT and inline:
        return True, inline
    return False, " ".join(argv)
