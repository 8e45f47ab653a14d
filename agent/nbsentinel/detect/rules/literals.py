r"""What an event's text must contain for a condition to hold.

An event is written as one text: each field's folded value between two marks, one character that stands for the field.
So `endswith: /nc` of the field with mark M needs `/ncM`, and one pass over the text tells whether it occurs.
"""

from __future__ import annotations

from collections.abc import Callable

from nbsentinel.detect.rules.linear import Linear
from nbsentinel.detect.rules.pack import And, Comparison, Node, Not
from nbsentinel.detect.rules.text import fold

Clause = frozenset[str]
"""Literals of which at least one must occur."""
MARKS = 9
"""Control characters that are marks; the ninth field shares its mark with all that follow."""
_AFTER_MARKS = chr(MARKS)
Mark = Callable[[str], str]
"""Returns the mark of a field."""

# Ordinary command lines: what occurs in them is a poor literal to look up rules by. Our own words, from what notebooks,
# builds and shells execute all day.
_ORDINARY = fold(
    """
/usr/bin/bash bash -c ls -la /home/user/project/src | head -n 20 && cd /tmp ; echo "done" > /dev/null 2>&1
/bin/sh sh -c -e set -x ; [ -f /etc/os-release ] && . /etc/os-release ; uname -a ; id -u ; whoami ; hostname
/usr/bin/python3.11 python3 -m ipykernel_launcher -f /home/user/.local/share/jupyter/runtime/kernel-1.json -I -S
/opt/conda/bin/python -m pip install --no-cache-dir --quiet -r requirements.txt https://pypi.org/simple numpy==1.26
/usr/bin/git git -C /home/user/repo commit -m "fix" --amend ; git fetch origin main ; git status --porcelain --config
/usr/bin/find find . -name "*.py" -type f -exec grep -n "import" {} + ; xargs -0 wc -l ; sort -u ; cut -d: -f1 ; tr -d
/usr/bin/env env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 USER=root
/usr/bin/gcc gcc -O2 -fPIC -Wall -I/usr/include -o build/main.o -c main.c ; make -j4 all ; cmake --build build ; ld -s
/usr/bin/tar tar -xzf data.tar.gz -C /var/tmp ; cp -r a /var/tmp/b/ ; mv /tmp/a/ b ; rm -rf build ; chmod 644 f
/usr/bin/curl curl -s -o out.json http://localhost:8888/api/status ; wget -q https://example.com/data.csv ; ssh -i key
/usr/bin/sed sed -i s/a/b/g file ; awk {print $1} ; cat /proc/cpuinfo ; ps aux ; top -b ; df -h ; free -m ; du -sh
/usr/lib/systemd/systemd --user ; dbus-daemon --session ; node /usr/lib/node_modules/npm/bin/npm-cli.js run build
/usr/bin/docker docker run --rm -it -v /home:/home image ; apt-get update -y ; dpkg -l ; perl -e ; ruby -e ; java -jar
/usr/bin/aws aws s3 ls s3://bucket/prefix ; jupyter lab --no-browser --ip=0.0.0.0 --port=8888 ; nohup train.py
"""
)


def clauses(node: Node, mark: Mark) -> list[Clause]:
    """Return clauses that all must be met for a condition to hold; none where nothing is known."""
    if isinstance(node, Comparison):
        return _of_test(node, mark)
    if isinstance(node, Not):
        inner = node.item
        return clauses(inner.item, mark) if isinstance(inner, Not) else []
    options = [clauses(item, mark) for item in node.items]
    if isinstance(node, And):
        return [clause for option in options for clause in option]
    if len(options) == 1:
        return options[0]
    if not options or not all(options):
        return []
    return [frozenset().union(*(min(option, key=cost) for option in options))]


def cost(clause: Clause) -> tuple[float, int]:
    """Return how often a clause is likely to be met: lower is better to look up a rule by."""
    return sum(_frequency(literal) for literal in clause), len(clause)


def is_framed(literal: str) -> bool:
    """Return whether a literal has a mark, and so can occur in one place of one field alone."""
    return literal[0] < _AFTER_MARKS or literal[-1] < _AFTER_MARKS


def _frequency(literal: str) -> float:
    plain = literal.strip("".join(map(chr, range(MARKS))))
    framed = len(literal) - len(plain)
    # A whole field is rarer than a part of one; a short literal occurs by chance.
    return (0.2 + 4 * _ORDINARY.count(plain)) / (1 + framed) + 20 * 0.25 ** len(plain)


def _of_test(test: Comparison, mark: Mark) -> list[Clause]:
    if test.field is None:
        return []
    if test.op == "bool":
        return [frozenset({mark(test.field) + test.value + mark(test.field)})]
    if test.op == "re":
        return Linear(test.value, test.flags).required
    if test.op == "like":
        return [frozenset({fold(part)}) for part in literal_parts(test.value)]
    if test.op not in ("eq", "contains", "startswith", "endswith"):
        return []
    text = fold(test.value)
    if test.op in ("eq", "startswith"):
        text = mark(test.field) + text
    if test.op in ("eq", "endswith"):
        text += mark(test.field)
    return [frozenset({text})] if text else []


def literal_parts(pattern: str) -> list[str]:
    r"""Return the literal runs of a `like` pattern, in which `*` and `?` are wildcards and `\` escapes them."""
    parts, current, escaped = [], "", False
    for char in pattern:
        if escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char in "*?":
            parts.append(current)
            current = ""
        else:
            current += char
    return [part for part in (*parts, current) if part]
