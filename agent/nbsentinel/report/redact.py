"""Taking secrets out of text before it is signed. What is signed leaves the machine, and cannot be unsigned.

Every pattern is linear in the length of the text: no nested repetition, bounded runs. The mark says what kind of secret
stood there. Applying it twice changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

_VALUE = r"[^\s\"'&;|<>]{1,4096}"
_NAMES = (
    r"(?:[A-Za-z0-9_\-]{0,64}(?:password|passwd|secret|token|api[_\-]?key|access[_\-]?key|private[_\-]?key|credentials?)"
    r"[A-Za-z0-9_\-]{0,32}|PGPASSWORD|MYSQL_PWD)"
)
_QUERY = (
    r"(?:token|access_token|sig|signature|key|api_key|apikey|password"
    r"|x-[a-z]{1,16}-(?:signature|security-token|credential))"
)
_Replacement = str | Callable[[re.Match[str]], str]


def _mark(kind: str) -> str:
    return f"<redacted:{kind}>"


def _key_id(match: re.Match[str]) -> str:
    return f"{match.group()[:4]}…{match.group()[-4:]}"


_PRIVATE_KEY = r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
_JWT = r"\beyJ[A-Za-z0-9_\-]{8,4096}\.[A-Za-z0-9_\-]{8,4096}\.[A-Za-z0-9_\-]{0,4096}"
_GITHUB = r"\b(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255})\b"
_HEADER = r"(?i)\b(authorization\s{0,3}:)(?!\s{0,3}<redacted)[^\"'\n]{1,4096}"
_SCHEME = r"(?i)\b(bearer|basic)(\s{1,3})(?!\s{0,3}<redacted)[A-Za-z0-9._~+/=\-]{8,4096}"
_USERINFO = r"(?i)\b([a-z][a-z0-9+.\-]{1,20}://)(?!<redacted)[^\s/@:\"']{0,256}:[^\s/@\"']{1,1024}@"
_ASSIGNED = (
    rf"(?i)\b({_NAMES}\s{{0,2}}[=:])(?!\s{{0,2}}[\"']?<redacted)(?!\s{{0,2}}\d{{1,8}}\b)(\s{{0,2}}[\"']?){_VALUE}"
)
_FLAG = rf"(?i)(--?{_NAMES})(?!\s{{1,3}}(?:[\"']?<redacted|-|\d{{1,8}}\b))(\s{{1,3}}[\"']?){_VALUE}"
_AWS_KEY = (
    r"(?<![A-Za-z0-9/+=])(?=[A-Za-z0-9/+]{0,39}[/+])(?=[A-Za-z0-9/+]{0,39}\d)(?=[A-Za-z0-9/+]{0,39}[a-z])"
    r"(?=[A-Za-z0-9/+]{0,39}[A-Z])(?!/)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
)
"""40 characters of base64 with digits, both cases and a slash or plus: an AWS secret access key, hardly a path."""

_PATTERNS: tuple[tuple[re.Pattern[str], _Replacement], ...] = (
    (re.compile(_PRIVATE_KEY, re.DOTALL), _mark("private-key")),
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b"), _key_id),
    (re.compile(_JWT), _mark("jwt")),
    (re.compile(_GITHUB), _mark("github-token")),
    (re.compile(r"\bhf_[A-Za-z0-9]{20,255}\b"), _mark("huggingface-token")),
    (re.compile(r"\bsk-[A-Za-z0-9_\-]{20,255}"), _mark("api-key")),
    (re.compile(r"\bxox[abposr]-[A-Za-z0-9\-]{10,255}"), _mark("slack-token")),
    (re.compile(_HEADER), r"\1 " + _mark("authorization")),
    (re.compile(_SCHEME), r"\1\2" + _mark("authorization")),
    (re.compile(_USERINFO), r"\1" + _mark("userinfo") + "@"),
    (re.compile(rf"(?i)([?&]{_QUERY}=)(?!<redacted){_VALUE}"), r"\1" + _mark("query")),
    (re.compile(_ASSIGNED), r"\1\2" + _mark("secret")),
    (re.compile(_FLAG), r"\1\2" + _mark("secret")),
    (re.compile(_AWS_KEY), _mark("aws-secret")),
)
_FLAG_NAME = re.compile(rf"(?i)^--?{_NAMES}$")
_USER_PROGRAMS = ("curl", "wget", "http", "https")
_SHORT_PASSWORD = ("mysql", "mysqldump", "mysqladmin", "mariadb", "sshpass")


_REMEMBERED, _SHORT = 512, 8192
"""The same paths and ancestors come again and again: that many texts up to this length are not looked at twice."""


def redact_text(text: str) -> str:
    """Return the text with every secret that is recognised replaced by a mark."""
    return _redact_short(text) if len(text) <= _SHORT else _redact(text)


def _redact(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


_redact_short = lru_cache(_REMEMBERED)(_redact)


def redact_arguments(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return arguments without secrets, also those that only their neighbour gives away (`--password x`, `-u a:b`)."""
    return _redact_few(argv) if sum(map(len, argv)) <= _SHORT else _redact_arguments(argv)


def _redact_arguments(argv: tuple[str, ...]) -> tuple[str, ...]:
    program = argv[0].rpartition("/")[2] if argv else ""
    found: list[str] = []
    previous = ""
    for argument in argv:
        found.append(_argument(argument, previous, program))
        previous = argument
    return tuple(found)


_redact_few = lru_cache(_REMEMBERED)(_redact_arguments)


def _argument(argument: str, previous: str, program: str) -> str:
    if _FLAG_NAME.match(previous) and not argument.startswith(("-", "<redacted")):
        return _mark("secret")
    if program in _USER_PROGRAMS and previous in ("-u", "--user", "--proxy-user", "-U") and ":" in argument:
        return argument.partition(":")[0] + ":" + _mark("password")
    if program in _SHORT_PASSWORD and argument.startswith("-p") and len(argument) > 2:
        return "-p" + _mark("password")
    if program in _SHORT_PASSWORD and previous == "-p" and not argument.startswith("-"):
        return _mark("password")
    return redact_text(argument)
