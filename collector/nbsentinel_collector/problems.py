"""Problems as RFC 9457 bodies: every refusal says precisely what is wrong and with which line."""

from __future__ import annotations

from starlette.responses import JSONResponse

TYPE = "urn:nbsentinel:problem:"
MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status, 4xx.
        code: The last part of the problem's type.
        title: What is wrong in general.
        detail: What is wrong here.
        members: Further members of the body, such as `line`, `chain_uid`, `expected_sequence`.
    """

    def __init__(self, status: int, code: str, title: str, detail: str, **members: object) -> None:
        super().__init__(f"{title}: {detail}")
        self.status, self.code, self.title, self.detail = status, code, title, detail
        self.members = {name: value for name, value in members.items() if value is not None}

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else None
        body = {
            "type": TYPE + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }
        return JSONResponse(body, self.status, headers, MEDIA_TYPE)
