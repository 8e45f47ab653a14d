"""Where an interpreter's commands come from, by its image and arguments."""

from __future__ import annotations

import pytest

from nbsentinel.detect.interpreters import InterpreterInput, InterpreterKind, classify

COMMANDS, ARGUMENT = InterpreterInput.COMMANDS, InterpreterInput.ARGUMENT


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("sh",), COMMANDS),
        (("-bash",), COMMANDS),
        (("bash", "-i"), COMMANDS),
        (("bash", "--norc", "-l"), COMMANDS),
        (("bash", "--rcfile", "/x", "-i"), COMMANDS),
        (("bash", "-s", "arg"), COMMANDS),
        (("bash", "-o", "pipefail"), COMMANDS),
        (("bash", "/dev/fd/63"), COMMANDS),
        (("sh", "/dev/stdin"), COMMANDS),
        (("[kworker]",), COMMANDS),
        (("sh", "-c", "ls"), ARGUMENT),
        (("bash", "-lc", "ls"), ARGUMENT),
        (("bash", "-euo", "pipefail", "-c", "ls"), ARGUMENT),
        (("bash", "train.sh"), ARGUMENT),
        (("bash", "-x", "train.sh", "-i"), ARGUMENT),
        (("fish", "--command", "ls"), ARGUMENT),
        ((), COMMANDS),
    ],
)
def test_shells(argv: tuple[str, ...], expected: InterpreterInput) -> None:
    """A shell takes commands from its input unless -c or a script says otherwise."""
    assert classify("shell", argv)[:2] == (InterpreterKind.SHELL, expected)


@pytest.mark.parametrize(
    ("argv", "kind", "expected"),
    [
        (("busybox", "sh"), InterpreterKind.SHELL, COMMANDS),
        (("sh",), InterpreterKind.SHELL, COMMANDS),
        (("/tmp/x", "ash", "-c", "ls"), InterpreterKind.SHELL, ARGUMENT),
        (("busybox", "wget", "http://example.com"), InterpreterKind.NONE, InterpreterInput.UNKNOWN_PROGRAM),
        ((), InterpreterKind.NONE, InterpreterInput.UNKNOWN_PROGRAM),
    ],
)
def test_busybox(argv: tuple[str, ...], kind: InterpreterKind, expected: InterpreterInput) -> None:
    """Busybox is a shell only when it runs as one."""
    assert classify("busybox", argv)[:2] == (kind, expected)


@pytest.mark.parametrize(
    ("image", "argv", "expected"),
    [
        ("python", ("python3",), COMMANDS),
        ("python", ("python3", "-q", "-i"), COMMANDS),
        ("python", ("python3", "-"), COMMANDS),
        ("python", ("python3", "-i", "setup.py"), COMMANDS),
        ("python", ("python3", "-X", "dev"), COMMANDS),
        ("python", ("python3", "-c", "print(1)"), ARGUMENT),
        ("python", ("python3", "-Ic", "print(1)"), ARGUMENT),
        ("python", ("python3", "-m", "http.server"), ARGUMENT),
        ("python", ("python3", "train.py", "-i"), ARGUMENT),
        ("perl", ("perl",), COMMANDS),
        ("perl", ("perl", "-e", "1"), ARGUMENT),
        ("perl", ("perl", "-MIO::Socket", "-e", "1"), ARGUMENT),
        ("node", ("node", "-i"), COMMANDS),
        ("node", ("node", "--interactive"), COMMANDS),
        ("node", ("node", "--eval", "1"), ARGUMENT),
        ("node", ("node", "server.js"), ARGUMENT),
        ("php", ("php", "-a"), COMMANDS),
        ("php", ("php", "-r", "1;"), ARGUMENT),
        ("lua", ("lua", "-"), COMMANDS),
        ("tcl", ("tclsh", "x.tcl"), ARGUMENT),
    ],
)
def test_languages(image: str, argv: tuple[str, ...], expected: InterpreterInput) -> None:
    """A language's interpreter takes commands from its input when it is started without a program."""
    assert classify(image, argv)[:2] == (InterpreterKind.CODE, expected)


def test_other_programs() -> None:
    """What is no interpreter that we know is said to be none."""
    assert classify(None, ("nginx",)).kind is InterpreterKind.NONE
