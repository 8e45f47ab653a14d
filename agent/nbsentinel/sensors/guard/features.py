"""Which features of the kernel the guard uses, and what that means, in words for `nbsentinel status`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_WAKE = {
    "1": "callers are answered on their own core",
    "0": "no synchronous wake-up (before Linux 6.6): a connection costs about 60 µs more",
}
_LANDLOCK = {
    "1": "Landlock keeps signals of what the server starts away from everything else",
    "0": "no Landlock signal scope (before Linux 6.12): signals are judged one by one",
}
_KILLABLE = {
    "1": "signals do not interrupt callers once they are received",
    "0": "no WAIT_KILLABLE_RECV (before Linux 5.19)",
}


def describe(sessions: Sequence[Mapping[str, str]]) -> tuple[list[str], str]:
    """Return (what is lacking, which features are in use) over the guarded commands of now."""
    if not sessions:
        return [], "nothing is guarded now"
    kinds: dict[str, int] = {}
    for session in sessions:
        kind = session.get("kind", "command")
        kinds[kind] = kinds.get(kind, 0) + 1
    counted = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in sorted(kinds.items()))
    words = [f"guards {counted}"]
    lacking = []
    for name, meanings in (("wake", _WAKE), ("killable", _KILLABLE), ("landlock", _LANDLOCK)):
        values = {session.get(name, "") for session in sessions}
        words += [meanings[value] for value in sorted(values) if value in meanings]
    blind = sum(session.get("connect") == "0" for session in sessions)
    if blind:
        lacking.append(f"connections of {blind} guarded commands are seen by /proc alone")
    return lacking, "; ".join(words)
