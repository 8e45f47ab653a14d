"""The operator's log."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nbsentinel.logs import operator_log


@contextmanager
def stream(descriptor: int) -> Iterator[io.TextIOWrapper]:
    with io.TextIOWrapper(io.FileIO(descriptor, "w"), write_through=True) as made:  # type: ignore[type-var]
        yield made


def test_one_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told is one JSON object a line."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    operator_log("info")("ready", {"chain": "c"})
    told = json.loads(sys.stderr.getvalue())  # type: ignore[attr-defined]
    assert (told["event"], told["chain"], told["level"]) == ("ready", "c", "info")


def test_log_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a pipe without a reader and a closed stream cost the line and nothing else."""
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in (os.open("/dev/full", os.O_WRONLY), writer):
        with stream(descriptor) as broken:
            with pytest.raises(OSError, match=r"No space left|Broken pipe"):
                broken.write("x\n")
            monkeypatch.setattr(sys, "stderr", broken)
            operator_log("info")("lost", {"error": "x"})
    operator_log("info")("lost", {})
