"""Taking secrets out of text before it is signed. What is signed leaves the machine, and cannot be unsigned.

Every pattern is linear in the length of the text: bounded runs, and nothing unbounded that could be read in two ways.
The mark says what kind of secret stood there. Applying it twice changes nothing.
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
_LONG_USERINFO = r"(://)(?<!ssh://)(?<!sftp://)(?!<redacted)[^\s/@:\"'?#;|&<>()]{16,256}@"
"""Something long before a URL's host: a token, except where it can only be a user's name."""

_BLANK = r"(?:\s|\\x0[9ad])"
"""White space, also what `nbsentinel.text` makes of tabs and line ends."""
_PLAIN = r"(?:[^\s\"';|&<>\\]|\\(?!x0[9ad]|[\"']))"
_QUOTE = r"(?P<quote>\\?[\"'])?"
_WORD = rf"(?!<redacted)(?(quote)(?:(?!(?P=quote))[^\n]){{1,4096}}|{_PLAIN}{{1,4096}})"
"""The rest of a shell's word, up to the quote that began it if one did."""
_COMMAND = r"(?:[^;|&\n\"'\\]+|\\\\x0a|\\(?!x0a)|(?<=[\s=])(?:\"[^\"]*\"|'[^']*')|[\"'])*"
"""Everything up to the end of a command in a shell's line, over quoted separators and continued lines."""
_USER_PROGRAMS = ("curl", "wget", "http", "https")
_USER_FLAGS = r"-[#0-46aBfgGiIjJklLMnNOpqRsSvZ]{0,12}?[uU]"
_USER = (
    rf"(?P<keep>(?:[\s\"']|\\x0[9ad])(?:{_USER_FLAGS}{_BLANK}{{0,3}}"
    rf"|--(?:proxy-)?user(?:{_BLANK}{{1,3}}|=)){_QUOTE}(?:[^\s:\"'\\]|\\(?!x0[9ad]|[\"'])){{0,256}}:){_WORD}"
)
"""`-u name:password`, also joined (`-uname:password`) and after curl's flags (`-sku name:password`)."""
_LONG_USER = (
    rf"(?P<keep>--(?:(?<![\w\-]--)|(?<=\\x0[9ad]--))(?:proxy-)?user(?:{_BLANK}{{1,3}}|=){_QUOTE}[^\s:;|&\"'/()@\\]{{0,128}}:)"
    rf"(?![/~]|\d{{1,5}}(?![^\s\"';|&])){_WORD}"
)
"""`--user name:password` of any program, if it is no pair of ids, no address with a port and no path."""
_PASSWORD_PROGRAMS = ("mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump", "login")
"""Programs, and the subcommand of docker and others, whose `-p` is a password."""
_OTHER_P = r"(?:(?:[\d.]{1,15}:){1,2}\d|(?:ath|ort|rofile|roxy)\b)"
"""What `-p` has at `docker run --name mysql -p 3306:3306`, and options of one dash that begin with p."""
_PASSWORD = rf"(?P<keep>(?:[\s\"']|\\x0[9ad])-p{_BLANK}{{0,3}}(?!-|{_OTHER_P}){_QUOTE}){_WORD}"
_SSHPASS = (
    rf"(?P<keep>sshpass(?:(?<![\w.\-]sshpass)|(?<=\\x0[9ad]sshpass))(?:{_BLANK}{{1,3}}-(?:v|P{_BLANK}{{0,3}}[^\s\-]{{1,64}})){{0,4}}"
    rf"{_BLANK}{{1,3}}-p{_BLANK}{{0,3}}{_QUOTE}){_WORD}"
)
"""Its own `-p` alone: that of the ssh behind it is a port."""
_AWS_VALUE = r"(?!/[a-z]{1,16}/)[A-Za-z0-9/+=]{16,4096}"
_AWS_SETTING = rf"(secret_access_key|session_token)({_BLANK}{{1,3}}[\"']?){_AWS_VALUE}(?![\w./+=~\-])"
"""`aws configure set aws_secret_access_key KEY`; what follows in a search is a file."""


def _of(programs: tuple[str, ...], secret: str, kind: str) -> tuple[re.Pattern[str], _Replacement]:
    """Return what marks a secret only among the arguments of these programs, wherever in a line they are run.

    A command is taken whole and looked through once: linear, however often it names the program.
    """
    names = "|".join(programs)
    inner, mark = re.compile(secret), rf"\g<keep>{_mark(kind)}"
    command = re.compile(rf"(?:(?<![\w.\-])|(?<=\\x0[9ad]))(?:{names})(?=[\"']?{_BLANK}){_COMMAND}")
    return command, lambda match: inner.sub(mark, match.group())


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
    (re.compile(_AWS_SETTING), r"\1\2" + _mark("aws-secret")),
    (re.compile(_AWS_KEY), _mark("aws-secret")),
    (re.compile(_LONG_USERINFO), r"\1" + _mark("userinfo") + "@"),
    _of(_USER_PROGRAMS, _USER, "password"),
    (re.compile(_LONG_USER), r"\g<keep>" + _mark("password")),
    _of(_PASSWORD_PROGRAMS, _PASSWORD, "password"),
    (re.compile(_SSHPASS), r"\g<keep>" + _mark("password")),
)

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
    found: list[str] = []
    programs: set[str] = set()
    previous = ""
    for argument in argv:
        found.append(_argument(argument, previous, programs))
        if "://" not in argument:
            programs.add(argument.rpartition("/")[2])
        previous = argument
    return tuple(found)


_redact_few = lru_cache(_REMEMBERED)(_redact_arguments)
_FLAG_NAME = re.compile(rf"(?i)^--?{_NAMES}$")
_SETTING_NAME, _SETTING_VALUE = re.compile(r"(?:secret_access_key|session_token)$"), re.compile(_AWS_VALUE)
_USER_OPTION = re.compile(rf"{_USER_FLAGS}|--(?:proxy-)?user")
_USER_JOINED = re.compile(rf"(?:{_USER_FLAGS}|--(?:proxy-)?user=)[^:]*:")
_OTHER, _OTHER_JOINED = re.compile(rf"-|{_OTHER_P}"), re.compile(_OTHER_P)
"""What follows a `-p` that is no password."""
_REMOTE_SHELLS = ("ssh", "scp", "sftp", "rsync")


def _argument(argument: str, previous: str, programs: set[str]) -> str:
    """Return an argument without secrets, by the one before it and the names before it that may be programs."""
    if _FLAG_NAME.match(previous) and not argument.startswith(("-", "<redacted")):
        return _mark("secret")
    if _SETTING_NAME.search(previous) and _SETTING_VALUE.fullmatch(argument):
        return _mark("aws-secret")
    named = _USER_OPTION.fullmatch(previous) or _USER_JOINED.match(argument)
    if named and ":" in argument and not programs.isdisjoint(_USER_PROGRAMS):
        return argument.partition(":")[0] + ":" + _mark("password")
    if _takes_password(programs):
        if previous == "-p" and not _OTHER.match(argument):
            return _mark("password")
        if argument.startswith("-p") and len(argument) > 2 and not _OTHER_JOINED.match(argument, 2):
            return "-p" + _mark("password")
    return redact_text(argument)


def _takes_password(programs: set[str]) -> bool:
    if not programs.isdisjoint(_PASSWORD_PROGRAMS):
        return True
    return "sshpass" in programs and programs.isdisjoint(_REMOTE_SHELLS)  # theirs is a port
