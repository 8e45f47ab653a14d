"""What joins processes: their root, their pipeline, and whom a call is aimed at."""

from __future__ import annotations

from msgspec.structs import replace

from nbsentinel.context.pipes import PIPES_LIMIT, Pipes
from nbsentinel.context.processes import ProcessTable
from nbsentinel.detect.incidents import Kin
from nbsentinel.detect.kinship import Kinship
from nbsentinel.events import FileAccess, FileOperation, KernelInfo, Millis, Process, ProcessKey
from support.simulation import System

KERNEL = KernelInfo(kernel_id="k", connection_file="/run/k.json")


class Family:
    """Processes that are started one by one, with what is known of their kinship."""

    def __init__(self) -> None:
        self.system, self.table = System(), ProcessTable()
        self.kinship = Kinship(self.table)

    def start(self, *argv: str, parent: ProcessKey | None = None, **more: object) -> ProcessKey:
        key = self.system.start(*argv, parent=parent, **more)  # type: ignore[arg-type]
        return self.run(key)

    def run(self, key: ProcessKey) -> ProcessKey:
        told = self.system.executed(key)
        self.table.apply(told)
        self.kinship.learn(told.process, self.system.image)
        return key

    def process(self, key: ProcessKey) -> Process:
        return self.system.processes[key]


def _text(key: ProcessKey) -> str:
    return f"{key.pid}@{key.start}"


def test_everything_below_one_command_of_a_kernel_has_one_job() -> None:
    """The kernel is the root of all, and each command that a cell starts is a job of its own."""
    family = Family()
    server = family.start("/bin/jupyter")
    kernel = family.start("/bin/python3", parent=server, kernel=KERNEL)
    first = family.start("/bin/sh", parent=kernel)
    reader, sender = (family.start(name, parent=first) for name in ("/bin/cat", "/bin/curl"))
    other = family.start("/bin/ls", parent=kernel)
    same = {"LineageRoot": _text(kernel), "Job": _text(first)}
    assert [family.kinship.lineage(key) for key in (first, reader, sender)] == [same] * 3
    assert family.kinship.lineage(other) == {"LineageRoot": _text(kernel), "Job": _text(other)}
    assert family.kinship.lineage(kernel) == {"LineageRoot": _text(kernel), "Job": _text(kernel)}


def test_two_terminals_have_different_roots() -> None:
    """What is typed in one terminal is not joined with what is typed in another of the same server."""
    family = Family()
    server = family.start("/bin/jupyter")
    shells = [family.start("/bin/bash", parent=server, tty=f"pts/{number}") for number in (1, 2)]
    commands = [family.start("/bin/ls", parent=shell) for shell in shells]
    assert [family.kinship.lineage(key)["LineageRoot"] for key in commands] == [_text(key) for key in shells]


def test_a_process_that_was_never_seen_has_no_lineage() -> None:
    """Nothing is invented: its events are left out of correlations by lineage, and counted there."""
    assert Family().kinship.lineage(ProcessKey(4, 4)) == {}


def test_both_ends_of_a_pipeline_are_told_whoever_begins_last() -> None:
    """A download piped through other programs into a shell is seen at the shell, or at the download."""
    for last in ("/usr/bin/curl", "/bin/bash"):
        family = Family()
        one, two = family.system.pipe(), family.system.pipe()
        curl, tee, shell = (
            family.system.start(name, image="shell" if name == "/bin/bash" else None)
            for name in ("/usr/bin/curl", "/usr/bin/tee", "/bin/bash")
        )
        family.system.hold(curl, 1, one)
        family.system.hold(tee, 0, one)
        family.system.hold(tee, 1, two)
        family.system.hold(shell, 0, two)
        for key in sorted((curl, tee, shell), key=lambda key: family.process(key).exe == last):
            family.run(key)
        found = family.kinship.execution(family.process(shell if last == "/bin/bash" else curl))
        if last == "/bin/bash":
            assert (found["InputFrom"], found["ReadsCommands"]) == (["/usr/bin/tee", "/usr/bin/curl"], True)
        else:
            assert (found["OutputTo"], found["OutputIsCommands"]) == (["/usr/bin/tee", "/bin/bash"], True)


def test_an_interpreter_with_a_script_takes_no_commands_from_its_pipe() -> None:
    """`curl ... | python3 -m json.tool` reads data."""
    family = Family()
    pipe = family.system.pipe()
    curl, python = (
        family.system.start("/usr/bin/curl"),
        family.system.start("/bin/p", "-m", "json.tool", image="python"),
    )
    family.system.hold(curl, 1, pipe)
    family.system.hold(python, 0, pipe)
    for key in (curl, python):
        family.run(key)
    found = family.kinship.execution(family.process(python))
    assert found["InputFrom"] == ["/usr/bin/curl"]
    assert "ReadsCommands" not in found


def test_a_fork_of_a_shell_reads_no_commands() -> None:
    """A shell's fork that has the pipe already and executes something else in a moment is no interpreter on it."""
    family = Family()
    curl, reader = family.start("/usr/bin/curl"), family.system.start("/bin/bash", image="shell")
    pipe = family.system.pipe()
    family.system.stdio(curl, family.system.connection(), pipe)
    family.run(curl)
    family.system.stdio(reader, pipe, pipe)
    for forked in (True, False):
        family.system.processes[reader] = replace(family.process(reader), forked=forked)
        family.run(reader)
        assert ("ReadsCommands" in family.kinship.execution(family.process(reader))) is not forked


def test_a_ring_of_pipes_ends() -> None:
    """Two programs that feed each other are followed once around."""
    family = Family()
    one, two = family.system.pipe(), family.system.pipe()
    first, second = family.system.start("/bin/a"), family.system.start("/bin/b")
    for key, reads, writes in ((first, one, two), (second, two, one)):
        family.system.hold(key, 0, reads)
        family.system.hold(key, 1, writes)
        family.run(key)
    assert family.kinship.execution(family.process(first))["InputFrom"] == ["/bin/b"]


def test_pipes_are_bounded() -> None:
    """However many pipelines there are, the pipe that was named longest ago is forgotten first."""
    family, pipes = Family(), Pipes()
    made = []
    for _ in range(PIPES_LIMIT + 1):
        pipe, key = family.system.pipe(), family.system.start("/bin/w")
        family.system.hold(key, 1, pipe)
        pipes.learn(family.system.executed(key).process)
        made.append(pipe)
    readers = []
    for pipe in (made[0], made[1]):
        key = family.system.start("/bin/r")
        family.system.hold(key, 0, pipe)
        readers.append(family.system.executed(key).process)
    assert [len(pipes.upstream(reader)) for reader in readers] == [0, 1]


def test_whom_a_call_is_aimed_at() -> None:
    """A debugger of its own child, a worker of the same job and somebody else's process are told apart."""
    family = Family()
    kernel = family.start("/bin/python3", kernel=KERNEL)
    job = family.start("/bin/sh", parent=kernel)
    caller, sibling = (family.start("/bin/work", parent=job) for _ in range(2))
    child, other = family.start("/bin/ls", parent=caller), family.start("/bin/x", parent=kernel)

    def relation(pid: int) -> object:
        return family.kinship.target(caller, {"TargetProcessId": str(pid)}).get("TargetRelation")

    found = [relation(pid) for pid in (caller.pid, child.pid, sibling.pid, other.pid, kernel.pid, 5)]
    assert found == ["self", "child", "job", "foreign", "foreign", "unknown"]
    assert family.kinship.target(caller, {}) == {}
    # Whom nobody has seen yet is what its parent is.
    of = {
        parent: family.kinship.target(caller, {"TargetProcessId": "5", "TargetParentProcessId": str(parent)})
        for parent in (caller.pid, child.pid, job.pid, other.pid, 6)
    }
    assert [found["TargetRelation"] for found in of.values()] == ["child", "child", "job", "foreign", "unknown"]


def test_who_could_have_done_it_is_told_by_command_line() -> None:
    """Where nobody is known to have changed a file, rules can see what ran at that moment."""
    family = Family()
    pip = family.start("/bin/pip", "install", "x")
    told = FileAccess(
        at=Millis(1),
        path="/home/u/.bashrc",
        operation=FileOperation.WRITE,
        kind="persistence-shell",
        key=None,
        certainty="unknown: no lease",
        candidates=(pip, ProcessKey(1, 2)),
        source="files",
    )
    root = {"CandidateRoot": _text(pip)}
    assert family.kinship.candidates(told) == {"CandidateCommandLine": ["/bin/pip install x"], **root}


def test_a_program_whose_file_is_gone_says_so() -> None:
    """The kernel marks it, and the rule's `Image` is still the path alone."""
    family = Family()
    key = family.start("/home/u/x (deleted)")
    assert family.kinship.execution(family.process(key))["ImageDeleted"] is True


def test_incidents_belong_to_a_kernel_and_to_nothing_above_it() -> None:
    """Whatever a kernel starts is of its lineage, whoever leaves its session too; the server it shares is not."""
    family = Family()
    server = family.start("/bin/jupyter")
    kernels = [family.start("/bin/python3", parent=server, kernel=KERNEL) for _ in range(2)]
    shell = family.start("/bin/sh", parent=kernels[0])
    away = family.start("/bin/sleep", parent=shell, tty="pts/9")
    kins = [family.kinship.kin(key, server) for key in (kernels[0], shell, away, kernels[1])]
    assert [kin.root for kin in kins[:2]] == [_text(kernels[0])] * 2
    assert kins[1].family == (shell, kernels[0])
    assert kins[2].root == _text(kernels[0])
    assert kins[3].root == _text(kernels[1])
    assert not any(server in kin.family for kin in kins)


def test_what_the_server_starts_itself_is_a_lineage_each() -> None:
    """Two programs below the server that are neither kernel nor terminal are not one, guarded together or not."""
    for guarded in (False, True):
        family = Family()
        first = family.start("/sbin/init")
        server = family.start("/bin/jupyter", parent=first)
        proxied = []
        for _ in range(2):
            key = family.system.start("/bin/app", parent=server)
            if guarded:
                family.system.processes[key] = replace(family.system.processes[key], root=server)
            proxied.append(family.run(key))
        helper = family.start("/bin/helper", parent=proxied[0])
        kins = [family.kinship.kin(key, server) for key in (*proxied, helper)]
        assert kins[0].root != kins[1].root
        assert proxied[0] in kins[2].family
        assert not any({first, server} & set(kin.family) for kin in kins)
        assert family.kinship.kin(server, server).family == (server,)


def test_a_guarded_command_is_one_lineage_with_all_that_it_starts() -> None:
    """The command itself, its children and those that left its tree are one, whatever else runs in their session."""
    family = Family()
    caller = family.start("/bin/bash")

    def guarded(parent: ProcessKey, root: ProcessKey | None = None) -> ProcessKey:
        key = family.system.start("/bin/sh", parent=parent)
        family.system.processes[key] = replace(family.system.processes[key], root=root or key, session=caller.pid)
        return family.run(key)

    first, second = guarded(caller), guarded(caller)
    child, orphan = guarded(first, first), guarded(ProcessKey(1, 1), first)
    kins = [family.kinship.kin(key, None) for key in (first, child, orphan, second)]
    assert [kin.root for kin in kins] == [*[_text(first)] * 3, _text(second)]
    assert not any(caller in kin.family for kin in kins)
    assert {family.kinship.lineage(key)["LineageRoot"] for key in (first, child, orphan)} == {_text(first)}


def test_a_stranger_is_a_lineage_of_its_own() -> None:
    """Who was never seen is told apart by its number, and joins nobody."""
    key = ProcessKey(5, 5)
    assert Family().kinship.kin(key, None) == Kin("5@5", (key,))


def test_candidates_count_where_they_agree() -> None:
    """What nobody is known to have done belongs to a lineage only where all candidates are of it."""
    family = Family()
    server = family.start("/bin/jupyter")
    kernel, other = (family.start("/bin/python3", parent=server, kernel=KERNEL) for _ in range(2))
    child = family.start("/bin/cat", parent=kernel)
    kinship = family.kinship
    assert kinship.kin_of_candidates((kernel, child), server) == Kin(_text(kernel))
    assert kinship.kin_of_candidates((kernel, other), server) == Kin()
    assert kinship.kin_of_candidates((), server) == Kin()
