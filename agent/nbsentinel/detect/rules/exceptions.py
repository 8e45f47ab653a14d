"""The files of the admin's exceptions, found and hashed without pySigma.

So the agent can tell whether the pack in force was made with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from nbsentinel.errors import RuleError

SUFFIXES = (".yml", ".yaml")
FILE_LIMIT = 1 << 20
COUNT_LIMIT = 1_000
"""Files of exceptions: others can write where they are, and the agent reads them all."""


def rule_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield every YAML file among or below the paths, in order.

    Raises:
        RuleError: A path does not exist.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        elif path.is_file():
            yield path
        else:
            raise RuleError(f"{path}: no such file or folder", hint="Give a file or a folder of Sigma rules.")


def digest(path: Path) -> str:
    """Return the SHA-256 over the names and contents of the files of exceptions.

    Raises:
        RuleError: The path does not exist, a file cannot be read or is too large, or there are too many.
    """
    whole = hashlib.sha256()
    for number, file in enumerate(rule_files([path])):
        if number >= COUNT_LIMIT:
            raise RuleError(f"{path}: more than {COUNT_LIMIT} files", hint="Put exceptions into fewer files.")
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            with file.open("rb") as opened:
                content = opened.read(FILE_LIMIT + 1)
        except OSError as error:
            raise RuleError(f"{file}: {error.strerror}", hint="Check the path and its permissions.") from error
        if len(content) > FILE_LIMIT:
            raise RuleError(f"{file}: larger than {FILE_LIMIT} bytes", hint="This is hardly a file of exceptions.")
        whole.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    return whole.hexdigest()
