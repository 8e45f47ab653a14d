"""What a command interpreter takes its commands from: its standard input, or its arguments."""

from __future__ import annotations

import os
from enum import Enum
from typing import NamedTuple


class InterpreterKind(str, Enum):
    """What sort of interpreter a process runs."""

    SHELL = "shell"
    CODE = "code"
    """A language's own prompt: python, perl, node ..."""
    NONE = "none"


class InterpreterInput(str, Enum):
    """Where the commands come from."""

    COMMANDS = "commands"
    """Standard input, or a descriptor or fifo given as the script."""
    ARGUMENT = "argument"
    """`-c`, `-e` or a script file: standard input is data, unless the script chooses to run it."""
    UNKNOWN_PROGRAM = "unknown-program"
    """Not an interpreter that we know."""


class Interpreter(NamedTuple):
    """The verdict on one process image."""

    kind: InterpreterKind
    input: InterpreterInput
    has_script: bool = False
    """A shell that was given a file to read its commands from: that file may be a pipe."""


_NONE = Interpreter(InterpreterKind.NONE, InterpreterInput.UNKNOWN_PROGRAM)
_STREAM_PATHS = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
_SHELL_APPLETS = ("sh", "ash", "hush", "bash", "lash", "msh")
_SHELL_VALUE_FLAGS = ("-o", "+o", "-O", "+O", "--rcfile", "--init-file")

_INLINE_FLAGS = {
    "python": ("c", "m"),
    "perl": ("e", "E"),
    "ruby": ("e",),
    "node": ("e", "p"),
    "php": ("r", "f", "S", "B", "R", "F"),
    "lua": (),
    "tcl": (),
    "julia": ("e", "E"),
    "r": ("e", "f"),
}
_VALUE_FLAGS = {
    "python": ("-W", "-X", "--check-hash-based-pycs"),
    "perl": ("-I", "-M", "-m"),
    "ruby": ("-I", "-r", "-C"),
    "node": ("-r", "--require", "--import", "--loader"),
    "php": ("-c", "-d", "-z"),
    "lua": ("-l",),
    "tcl": ("-encoding",),
    "julia": ("-p", "-t"),
    "r": (),
}
_LONG_INLINE = ("--eval", "--print", "--file", "--expression", "--run")


def classify(image: str | None, argv: tuple[str, ...]) -> Interpreter:
    """Return what a process interprets and where its commands come from.

    Args:
        image: What the running file is, as `ObjectView.image` says: `shell`, `busybox`, `python` ... or None.
        argv: The arguments. A process can rewrite its own later; an interpreter that reads commands has no reason to.
    """
    if image == "busybox":
        return _busybox(argv)
    if image == "shell":
        return _shell(argv[1:])
    if image in _INLINE_FLAGS:
        return Interpreter(InterpreterKind.CODE, _code_input(image, argv[1:]))
    return _NONE


def _busybox(argv: tuple[str, ...]) -> Interpreter:
    if not argv:
        return _NONE
    applet, rest = os.path.basename(argv[0].removeprefix("-")), argv[1:]
    if applet not in _SHELL_APPLETS and rest and os.path.basename(rest[0]) in _SHELL_APPLETS:
        applet, rest = rest[0], rest[1:]
    if os.path.basename(applet) in _SHELL_APPLETS:
        return _shell(rest)
    return _NONE


def _is_stream(operand: str) -> bool:
    return operand == "-" or operand.startswith(_STREAM_PATHS)


def _shell(args: tuple[str, ...]) -> Interpreter:
    source, has_script = _shell_input(args)
    return Interpreter(InterpreterKind.SHELL, source, has_script)


def _shell_input(args: tuple[str, ...]) -> tuple[InterpreterInput, bool]:
    """Return where a shell's commands come from, and whether that is a file named by an argument."""
    skip = False
    for arg in args:
        if skip:
            skip = False
        elif arg in _SHELL_VALUE_FLAGS:
            skip = True
        elif arg in ("-", "--"):
            continue
        elif arg.startswith("--"):
            if arg in ("--command", "--init-command"):
                return InterpreterInput.ARGUMENT, False
        elif arg[:1] in "-+" and len(arg) > 1:
            if "c" in arg[1:] and arg[0] == "-":
                return InterpreterInput.ARGUMENT, False
            if "s" in arg[1:] and arg[0] == "-":
                return InterpreterInput.COMMANDS, False
        else:
            return (InterpreterInput.COMMANDS if _is_stream(arg) else InterpreterInput.ARGUMENT), True
    return InterpreterInput.COMMANDS, False


def _code_input(image: str, args: tuple[str, ...]) -> InterpreterInput:
    inline, values = _INLINE_FLAGS[image], _VALUE_FLAGS[image]
    if _asks_for_prompt(image, args):
        return InterpreterInput.COMMANDS
    skip = False
    for arg in args:
        if skip:
            skip = False
        elif arg in values:
            skip = True
        elif arg.startswith("--"):
            if arg.startswith(_LONG_INLINE):
                return InterpreterInput.ARGUMENT
        elif arg.startswith("-") and len(arg) > 1:
            if any(flag in arg[1:] for flag in inline):
                return InterpreterInput.ARGUMENT
        else:
            return InterpreterInput.COMMANDS if _is_stream(arg) else InterpreterInput.ARGUMENT
    return InterpreterInput.COMMANDS


def _asks_for_prompt(image: str, args: tuple[str, ...]) -> bool:
    """Return whether a flag asks for a prompt after the script (`python -i`, `node -i`, `php -a`, `perl -d`)."""
    flag = {"php": "a", "perl": "d"}.get(image, "i")
    long = {"node": "--interactive", "php": "--interactive"}.get(image)
    for arg in args:
        if not arg.startswith("-") or arg in ("-c", "-m", "-e", "-E"):
            return False
        if arg == long or (not arg.startswith("--") and flag in arg[1:]):
            return True
    return False
