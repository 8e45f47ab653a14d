"""Reading request bodies within bounds: by bytes as sent, by bytes after decompression, by lines."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from nbsentinel.attest.canonical import LINE_LIMIT
from nbsentinel_collector.problems import ProblemError

_GZIP = 31
"""zlib's window bits for a gzip header and nothing else."""


async def read(request: Request, *, most: int) -> bytes:
    """Return the body as sent.

    Raises:
        ProblemError: 413 when it is longer than `most` bytes; 400 when the client went away in the middle.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        stream: AsyncIterator[bytes] = request.stream()
        async for chunk in stream:
            size += len(chunk)
            if size > most:
                raise ProblemError(413, "too-large", "Body too large", f"more than {most} bytes were sent")
            chunks.append(chunk)
    except ClientDisconnect:
        raise ProblemError(400, "malformed", "Body incomplete", "the client went away") from None
    return b"".join(chunks)


def decode(body: bytes, encoding: str, *, most: int) -> bytes:
    """Return the body without its content encoding, never building more than `most` bytes.

    Raises:
        ProblemError: 415 for an unknown encoding, 400 for a broken one, 413 when it decodes to more than `most` bytes.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name != "gzip":
        raise ProblemError(415, "unsupported-encoding", "Unsupported content encoding", f"{name[:40]!r}; use gzip")
    decompressor = zlib.decompressobj(_GZIP)
    try:
        data = decompressor.decompress(body, most + 1)
    except zlib.error as error:
        raise ProblemError(400, "malformed", "Broken gzip", str(error)) from None
    if len(data) > most:
        raise ProblemError(413, "too-large", "Body too large", f"it decodes to more than {most} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise ProblemError(400, "malformed", "Broken gzip", "the stream is cut off or followed by other bytes")
    return data


def lines(data: bytes, *, most: int) -> list[bytes]:
    """Return the lines of an NDJSON body.

    Raises:
        ProblemError: Empty, too many lines, or a line that is empty or too long.
    """
    found = data.split(b"\n")
    if found and not found[-1]:
        found.pop()
    if not found:
        raise ProblemError(400, "malformed", "Empty body", "there is no event in it")
    if len(found) > most:
        raise ProblemError(413, "too-large", "Too many events", f"{len(found)} lines, at most {most}", lines=len(found))
    for number, line in enumerate(found, 1):
        if not line:
            raise ProblemError(400, "malformed", "Empty line", f"line {number} is empty", line=number)
        if len(line) > LINE_LIMIT:
            raise ProblemError(413, "too-large", "Line too long", f"line {number} has {len(line)} bytes", line=number)
    return found
