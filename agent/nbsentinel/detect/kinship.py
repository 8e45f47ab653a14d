"""What joins events of different processes, as fields: their common root, their pipeline, whom they touch. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from nbsentinel.context.pipes import PIPES_LIMIT, Pipes, joins
from nbsentinel.context.processes import ProcessTable
from nbsentinel.context.programs import by_name
from nbsentinel.detect.fields import Fields
from nbsentinel.detect.incidents import Kin
from nbsentinel.detect.interpreters import InterpreterInput, classify
from nbsentinel.events import EnvironSweep, FileAccess, Process, ProcessKey

_DELETED = " (deleted)"


class Kinship:
    """Tells what a process shares with others.

    Args:
        table: The process table.
    """

    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        self._pipes = Pipes()
        self._obedient: OrderedDict[ProcessKey, None] = OrderedDict()
        """Interpreters whose commands come through a pipe."""

    def learn(self, process: Process, image: Callable[[ProcessKey], str | None]) -> None:
        """Take in a program that begins to run.

        Args:
            process: The program.
            image: Returns what its file is, by its contents.
        """
        self._pipes.learn(process)
        self._obedient.pop(process.key, None)
        if process.forked or not joins(process.stdio[0] or ""):
            return  # a fork of a shell reads nothing: it is about to become what reads
        if classify(image(process.key) or by_name(process.exe), process.argv).input is InterpreterInput.COMMANDS:
            self._obedient[process.key] = None
            if len(self._obedient) > PIPES_LIMIT:
                self._obedient.popitem(last=False)

    def lineage(self, key: ProcessKey) -> Fields:
        """Return the fields that correlations group by.

        `LineageRoot` is the kernel, the guarded command or the terminal that a process belongs to, without any of them
        the topmost ancestor in its session. `Job` is what that one started on the way to the process: everything
        below one `!command` has the same.
        """
        own = self._table.get(key)
        if own is None:
            return {}
        line = (own, *self._table.lineage(key))
        root = _root(line)
        return {"LineageRoot": _text(line[root].key), "Job": _text(line[max(0, root - 1)].key)}

    def kin(self, key: ProcessKey, server: ProcessKey | None) -> Kin:
        """Return the lineage whose incidents a process's findings join.

        It never reaches up to what kernels and terminals have in common, the Jupyter server or the first process: two
        things that the server started are two lineages.

        Args:
            key: The process.
            server: The Jupyter server, where it is known.
        """
        own = self._table.get(key)
        if own is None:
            return Kin(_text(key), (key,))
        line = (own, *self._table.lineage(key))
        shared = next((place for place, one in enumerate(line) if one.key == server or one.key.pid == 1), len(line))
        line = line[: max(1, shared)]
        root = _root(line)
        # Without a kernel, terminal or command above it, a new session alone does not make somebody else of it.
        family = line[: root + 1] if _is_root(line, root) else line
        return Kin(_text(line[root].key), tuple(one.key for one in family))

    def kin_of_candidates(self, keys: tuple[ProcessKey, ...], server: ProcessKey | None) -> Kin:
        """Return the lineage that all who could have done something have in common, an empty one if there is none."""
        found = {self.kin(key, server).root for key in keys if self._table.get(key)}
        return Kin(found.pop()) if len(found) == 1 else Kin()

    def execution(self, process: Process) -> Fields:
        """Return what an execution's streams and file say beside its own fields."""
        found: Fields = dict(self.lineage(process.key))
        if process.exe is not None and process.exe.endswith(_DELETED):
            found["ImageDeleted"] = True
        if upstream := self._pipes.upstream(process):
            found["InputFrom"] = _images(upstream)
        if downstream := self._pipes.downstream(process):
            found["OutputTo"] = _images(downstream)
        if process.key in self._obedient:
            found["ReadsCommands"] = True
        if any(other.key in self._obedient for other in downstream):
            found["OutputIsCommands"] = True
        return found

    def target(self, caller: ProcessKey, arguments: dict[str, str]) -> Fields:
        """Return what the process that a call is aimed at is to the caller: self, child, job, foreign or unknown."""
        pid = arguments.get("TargetProcessId", "")
        if not pid.isdigit():
            return {}
        if int(pid) == caller.pid:
            return {"TargetRelation": "self"}
        parent = arguments.get("TargetParentProcessId", "")
        if parent == str(caller.pid):
            return {"TargetRelation": "child"}  # also one that has not executed anything yet
        other = self._table.latest(int(pid))
        if other is None and parent.isdigit():
            other = self._table.latest(int(parent))  # what its parent is to the caller, it is too
        if other is None:
            return {"TargetRelation": "unknown"}
        if any(ancestor.key == caller for ancestor in self._table.lineage(other.key)):
            return {"TargetRelation": "child"}
        ours, theirs = self.lineage(caller), self.lineage(other.key)
        joined = ours.get("Job") is not None and ours.get("Job") == theirs.get("Job")
        return {"TargetRelation": "job" if joined else "foreign"}

    def candidates(self, told: FileAccess | EnvironSweep) -> Fields:
        """Return the command lines of those who could have done what nobody is known to have done, the newest first.

        `CandidateRoot` is the newest one's `LineageRoot`: what tells two such events apart.
        """
        known = [process for key in told.candidates if (process := self._table.get(key))]
        if not known:
            return {}
        root = self.lineage(known[0].key)["LineageRoot"]
        return {"CandidateCommandLine": [process.command_line for process in known], "CandidateRoot": root}


def _root(line: tuple[Process, ...]) -> int:
    """Return the place of the root in a line of ancestors that begins with the process itself."""
    kernel = next((place for place, process in enumerate(line) if process.kernel is not None), None)
    if kernel is not None:
        return kernel
    guarded = line[0].root
    for place, process in enumerate(line):
        if process.key == guarded or (process.tty and process.session == process.key.pid):
            return place
    session = line[0].session
    return max((place for place, process in enumerate(line) if process.session == session), default=0)


def _is_root(line: tuple[Process, ...], place: int) -> bool:
    """Return whether a lineage begins there for certain: a kernel, a guarded command, the leader of a terminal."""
    one = line[place]
    leads = bool(one.tty) and one.session == one.key.pid
    return one.kernel is not None or one.key == line[0].root or leads


def _images(processes: tuple[Process, ...]) -> list[str]:
    return [(process.exe or process.name).removesuffix(_DELETED) for process in processes]


def _text(key: ProcessKey) -> str:
    return f"{key.pid}@{key.start}"
