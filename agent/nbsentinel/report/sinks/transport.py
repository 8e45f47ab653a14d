"""HTTP with the collector: gzip, verified TLS, time limits, problems (RFC 9457) as values."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nbsentinel import __version__
from nbsentinel.errors import CollectorError

if TYPE_CHECKING:
    import requests

RETRY_STATUS = (408, 425, 429)
"""Client errors that pass by themselves; like every 5xx they are tried again."""
BODY_LIMIT = 1 << 20
_TYPE = "urn:nbsentinel:problem:"


class Problem(NamedTuple):
    """What the collector said was wrong."""

    code: str
    title: str
    detail: str
    chain_uid: str | None = None
    expected_sequence: int | None = None
    line: int | None = None
    """Number of the line that is to blame, from 1."""


class Enrolled(NamedTuple):
    """The collector's answer to an enrolment."""

    agent_uid: str
    next_token: str


class Transport:
    """Speaks with one collector; to be used by one thread.

    Args:
        url: Base URL of the collector.
        ca_bundle: PEM file of the authorities to trust, None for the usual ones. Certificates are always verified.
        connect_timeout: Seconds.
        read_timeout: Seconds.
    """

    def __init__(self, url: str, *, ca_bundle: str | None, connect_timeout: float, read_timeout: float) -> None:
        self._url = url.rstrip("/")
        self._verify: bool | str = ca_bundle or True
        self._timeout = (connect_timeout, read_timeout)
        self._session: requests.Session | None = None

    def events(self, lines: Sequence[bytes], *, across_gap: bool = False) -> Problem | None:
        """Send signed lines; return None when all were taken, or the problem that needs mending.

        Args:
            lines: The signed lines, each chain in order.
            across_gap: Say that events before these were pruned and will be accounted for by a signed statement.

        Raises:
            CollectorError: No answer, or one that says to try again later.
        """
        body = gzip.compress(b"\n".join(lines) + b"\n", compresslevel=1)
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
        if across_gap:
            headers["Nbsentinel-Across-Gap"] = "1"
        answer = self._post("/v1/events", body, headers)
        return answer if isinstance(answer, Problem) else None

    def enrol(self, token: str, genesis: bytes, *, orphan: bool) -> Enrolled | Problem:
        """Present the first event of a chain and a token.

        Raises:
            CollectorError: No answer, or one that says to try again later.
        """
        import json

        body = json.dumps({"token": token, "line": genesis.decode(errors="replace"), "orphan": orphan}).encode()
        answer = self._post("/v1/enroll", body, {"Content-Type": "application/json"})
        if isinstance(answer, Problem):
            return answer
        try:
            return Enrolled(str(answer["agent_uid"]), str(answer["next_token"]))
        except KeyError as error:
            raise CollectorError(f"{self._url}: the answer to an enrolment lacks {error}") from error

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> dict[str, object] | Problem:
        import requests
        import urllib3

        if self._session is None:
            self._session = requests.Session()
            self._session.headers["User-Agent"] = f"nbsentinel/{__version__}"
            # A proxy, a netrc or a CA bundle of the user's environment must not redirect or weaken this.
            self._session.trust_env = False
        try:
            response = self._session.post(
                self._url + path,
                data=body,
                headers=headers,
                timeout=self._timeout,
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            )
            content = response.raw.read(BODY_LIMIT, decode_content=True)
            response.close()
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise CollectorError(f"{self._url}: {type(error).__name__}: {_short(error)}") from error
        return _judge(self._url, response.status_code, content)


def _short(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return str(reason)[-200:]


def _judge(url: str, status: int, content: bytes) -> dict[str, object] | Problem:
    """Return the answer's content for success, a problem for a lasting refusal; raise what passes by itself."""
    import json

    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    if status == 413 and not isinstance(answer, dict):
        answer = {"type": f"{_TYPE}too-large", "detail": "somebody on the way to the collector says so"}
    if status < 400 or status >= 500 or status in RETRY_STATUS or not isinstance(answer, dict):
        raise CollectorError(f"{url}: answered {status}", hint="Is this the address of a collector?")
    sequence = answer.get("expected_sequence")
    chain, line = answer.get("chain_uid"), answer.get("line")
    return Problem(
        code=str(answer.get("type", "")).removeprefix(_TYPE),
        title=str(answer.get("title", status)),
        detail=str(answer.get("detail", "")),
        chain_uid=chain if isinstance(chain, str) else None,
        expected_sequence=sequence if isinstance(sequence, int) else None,
        line=line if isinstance(line, int) and line > 0 else None,
    )
