"""What a rule needs to see anything: which sensor fills a category, and what is concluded rather than seen."""

from __future__ import annotations

from collections.abc import Iterable

from nbsentinel.detect.rules.pack import And, Comparison, Node, Not, Or

NEEDS = {
    "process_creation": "the guard (every execution, however short); procfs (what lives when it looks)",
    "network_connection": "the guard (every connection of what is guarded); procfs (what is open when it looks)",
    "system_call": "the guard alone",
    "agent_tampering": "the guard (calls that it refused), and the agent's, the keeper's and the holder's checks of"
    " themselves",
    "file_event": "the file sensor; who it was is known for certain with leases, which need the guard",
    "kernel_audit": "the kernel sensor: Python kernels that load our startup file; a hint, code in the kernel can lie",
    "api_call": "the kernel sensor: Python kernels that load our startup file; a hint, code in the kernel can lie",
    "environ_sweep": "the file sensor's decoys, which need the guard",
}
"""By category: who fills it, as docs/reference says at length."""
EXAMPLES = {
    "kernel_audit": ("CommandLine|contains", "/kernel-of-the-expected-notebook"),
    "api_call": ("Region", "the-region-where-it-is-expected"),
    "agent_tampering": ("CommandLine|contains", "the-command-of-your-maintenance"),
    "environ_sweep": ("CandidateCommandLine|contains", "the-monitor-you-expect"),
}
"""By category: a field that tells what is expected from what is not, where it is not `Image`."""
_GUARDED = ("Preloads", "Unreadable", "ClaimedDestinationIp", "ClaimedDestinationPort")


def fields_in(nodes: Iterable[Node]) -> set[str]:
    """Return every field that tests look at."""
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, Comparison):
            found |= {name for name in (node.field, node.value if node.op == "ref" else None) if name}
        elif isinstance(node, Not):
            waiting.append(node.item)
        else:
            assert isinstance(node, (And, Or))
            waiting += node.items
    return found


def behaviour_of(fields: Iterable[str]) -> str:
    """Return what has to be concluded before a rule on these fields can match; empty for nothing."""
    names = set(fields)
    if any(name.startswith("Loop") for name in names):
        return (
            "That a process executes what a peer sends is concluded from the order of bytes and executions: with the"
            " guard from the moments of each execution, without it only from what procfs happens to see."
        )
    if "RemoteControlled" in names:
        return (
            "That a peer controls a process is concluded from where its standard streams lead, through sockets, pipes"
            " and terminals in `/proc`, with any sensor."
        )
    return ""


def guarded_only(fields: Iterable[str]) -> list[str]:
    """Return those of the fields that only the guard fills."""
    return [name for name in fields if name in _GUARDED]
