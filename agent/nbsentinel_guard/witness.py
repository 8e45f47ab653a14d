"""Looks at one trapped call, answers it and records it: the same for whoever does it, supervisor, holder or agent.

The caller waits while we look, so a connection is answered after one read of the caller's memory and of its descriptor;
which process the thread belongs to is looked up after the answer. What a new image is, is read while it waits before
its first instruction of its own: there it cannot lie.
"""

from __future__ import annotations

import errno
import os
import struct
import time

from nbsentinel_guard import abi, evidence, names, openers, peers, policy, proc, records, rights, seccomp
from nbsentinel_guard.page import CLAIM_SIZE
from nbsentinel_guard.standdown import ONLY_LOOK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List

    from nbsentinel_guard.page import Page, Ring, Slot
    from nbsentinel_guard.table import Table

DATAGRAM_S = 60.0
"""A process that keeps sending to the same address is told of once in this time."""
_POINTER = struct.Struct("=QI4xQQ")
_SHELLS = ("sh", "ash", "bash", "dash", "zsh", "ksh", "mksh", "fish", "busybox", "csh", "tcsh")
_LANGUAGES = ("python", "perl", "ruby", "node", "lua", "php", "tclsh", "socat", "nc", "ncat")
_INTERPRETERS = frozenset(name.encode() for name in _SHELLS + _LANGUAGES)


class Witness:
    """Answers the calls of one listener.

    Args:
        page: Where held calls are noted.
        ring: Takes the records.
        table: What is known of processes.
        index: The listener's place.
        listener: Its descriptor.
        may_read_memory: False behaves as under Yama.
        kernel: The kernel that the listener belongs to, 0 where it belongs to something else.
    """

    def __init__(
        self,
        page: Page,
        ring: Ring,
        table: Table,
        index: int,
        listener: int,
        *,
        may_read_memory: bool,
        kernel: int,
    ) -> None:
        self._page, self._ring, self._table, self._kernel = page, ring, table, kernel
        self._index, self._listener = index, listener
        self._memory = evidence.Memory(permitted=may_read_memory)
        self._peers = peers.Peers()
        self._at = 0
        """When the present call came: what is told of it after its answer is told of that moment."""
        self._respond = seccomp.Answer(listener)
        self._policy = policy.Policy(evidence.leader, evidence.group, evidence.process_of_descriptor, os.getuid())
        calls = abi.calls()
        self._names = {number: name for name, number in calls.items()}
        serving = {
            "connect": self._connect,
            "execve": self._attempt,
            "execveat": self._attempt,
            "arch_prctl" if "arch_prctl" in calls else "set_tid_address": self._image,
            "sendto": self._send_to,
            "sendmsg": self._send_message,
            "sendmmsg": self._send_message,
            "prctl": self._hide,
        }
        self._serving: Dict[int, Callable[[Slot], None]] = {
            abi.word(number): serving.get(name, self._other) for name, number in calls.items()
        }
        """By number and architecture: what is not there belongs to a foreign one."""

    def serve(self, slot: Slot) -> None:
        """Look at the call in a slot, answer and record it; the slot is empty afterwards."""
        self._at = _now()
        try:
            self._serving.get(slot.words[2], self._foreign)(slot)
        except Exception as error:  # noqa: BLE001 - a caller must never wait for our mistake
            self.notice(b"failure", ("%s: %s" % (type(error).__name__, error)).encode("utf-8", "replace"))
        if not slot.words[11] & 1:
            self.answer(slot, policy.default_error(slot.architecture, slot.number))
        slot.clear()

    def recall(self, slot: Slot) -> None:
        """Record a connection that was answered by somebody who died before telling of it, from what the slot has."""
        self._at = _now()
        if slot.words[12] and self._names.get(slot.number) in ("connect", "sendto", "sendmsg"):
            self._tell_connection(slot, 0, records.BY_CALL)

    def answer(self, slot: Slot, error: int = 0) -> None:
        """Let a call proceed, or refuse it."""
        self._respond(slot.words[0], error)
        slot.words[11] |= 1

    def notice(self, what: bytes, why: bytes) -> None:
        """Tell the agent something about ourselves."""
        who = records.Who(_now(), 0, 0, 0, 0)
        self._ring.put(records.NOTICE, self._index, records.told(who, what, why))

    def _put(self, slot: Slot, kind: int, payload: bytes, *, urgent: bool = False) -> None:
        self._ring.put(kind, self._index, payload, urgent=urgent)
        slot.words[11] |= slot.TOLD

    def _who(self, slot: Slot) -> records.Who:
        tid = slot.tid
        pid, start = self._table.of(tid)
        return records.Who(self._at, tid, pid, start, slot.words[0])

    def _meet(self, slot: Slot) -> None:
        """Look at the caller while it waits, and tell of a process that no execution has told of."""
        parent = self._table.meet(slot.tid)
        if parent:
            who = self._who(slot)._replace(call=0)  # what it calls is told by a record of its own
            fork = records.told(who, b"%d" % parent, b"%d" % self._table.of(parent)[1])
            self._ring.put(records.FORK, self._index, fork)

    # Connections

    def _connect(self, slot: Slot) -> None:
        words = slot.words
        length = words[6] & 0xFFFFFFFF
        tid = words[1] & 0xFFFFFFFF
        self._meet(slot)
        got = self._memory.copy(tid, words[5], slot.claim_address, min(CLAIM_SIZE, length))
        words[12] = got
        if slot.claim[3] == names.PORT and slot.claim[2] == 0 and got:
            # Before the answer: another thread serves the question that follows.
            self._table.remember(self._table.resolvers, (self._table.of(tid)[0], words[4] & 0xFFFFFFFF), None)
        # Before the answer: afterwards the descriptor may stand for another socket at once.
        inode = evidence.socket_inode(tid, words[4] & 0xFFFFFFFF)
        self._respond(words[0])
        words[11] |= 1
        if not got and inode and length:
            peer = self._peers.wait_for(inode)
            slot.claim[: len(peer)] = peer
            words[12] = len(peer)
        self._tell_connection(slot, inode, records.BY_CALL)

    def _tell_connection(self, slot: Slot, inode: int, way: int) -> None:
        words = slot.words
        tid, descriptor = words[1] & 0xFFFFFFFF, words[4] & 0xFFFFFFFF
        claim = bytes(slot.claim[: words[12]])
        pid, start = self._table.of(tid)
        record = records.connect(self._at, tid, pid, start, words[0], inode, descriptor, way, claim)
        self._ring.put(records.CONNECT, self._index, record)
        words[11] |= 2

    def _send_to(self, slot: Slot) -> None:
        self._meet(slot)
        length = min(slot.words[9] & 0xFFFFFFFF, CLAIM_SIZE) if slot.words[8] else 0
        slot.words[12] = self._memory.copy(slot.tid, slot.words[8], slot.claim_address, length)
        claim = slot.claim_bytes()
        asked = b""
        if claim[2:4] == b"\0\x35":
            size = min(slot.words[6], names.SIZE)
            asked = names.question(self._memory.read(slot.tid, slot.words[5], size))
        self.answer(slot)
        if asked:
            self._put(slot, records.NAME, records.told(self._who(slot), asked))
        elif slot.words[7] & abi.MSG_FASTOPEN:
            self._tell_connection(slot, 0, records.BY_FAST_OPEN)
        elif evidence.endpoint(claim) and self._is_new_datagram(slot, claim):
            self._tell_connection(slot, 0, records.BY_DATAGRAM)

    def _is_new_datagram(self, slot: Slot, claim: bytes) -> bool:
        key, now = (self._table.of(slot.tid)[0], claim), time.monotonic()
        last = self._table.datagrams.get(key)
        if last is not None and now - last < DATAGRAM_S:
            return False
        self._table.remember(self._table.datagrams, key, now)
        return True

    def _send_message(self, slot: Slot) -> None:
        """A name's question through sendmmsg, and connections by sendmsg and sendmmsg with MSG_FASTOPEN."""
        self._meet(slot)
        many = self._names[slot.number] == "sendmmsg"
        opens = slot.words[7 if many else 6] & abi.MSG_FASTOPEN
        header = self._memory.read(slot.tid, slot.words[5], 56)
        asked = b""
        if len(header) == 56:
            address, length, vectors, count = _POINTER.unpack_from(header)
            if address:
                length = min(length, CLAIM_SIZE)
                slot.words[12] = self._memory.copy(slot.tid, address, slot.claim_address, length)
            if many and count:
                asked = self._question(slot, vectors)
        self.answer(slot)
        if asked:
            self._put(slot, records.NAME, records.told(self._who(slot), asked))
        elif opens and slot.words[12]:
            self._tell_connection(slot, 0, records.BY_FAST_OPEN)

    def _question(self, slot: Slot, vectors: int) -> bytes:
        """Return the name that the first message asks a name server for, b"" for anything else."""
        claim = slot.claim_bytes()
        key = self._table.of(slot.tid)[0], slot.words[4] & 0xFFFFFFFF
        if claim[2:4] != b"\0\x35" and key not in self._table.resolvers:
            return b""
        vector = self._memory.read(slot.tid, vectors, 16)
        if len(vector) < 16:
            return b""
        base, length = struct.unpack("=QQ", vector)
        return names.question(self._memory.read(slot.tid, base, min(length, names.SIZE)))

    # Executions

    def _attempt(self, slot: Slot) -> None:
        """An execve is about to be tried: keep what an unreadable image will not show any more."""
        tid = slot.tid
        at = self._names[slot.number] == "execveat"
        path = self._memory.text(tid, slot.words[5 if at else 4]) if self._memory.permitted else b""
        if at and not path.startswith(b"/"):
            base = evidence.link(b"/proc/%d/fd/%d" % (tid, slot.words[4] & 0xFFFFFFFF)) or b""
            path = base + (b"/" + path if path else b"")
        pid, start = self._table.caller(tid)
        who = records.Who(self._at, tid, pid, start, slot.words[0])
        streams = evidence.streams(tid)
        if not any(streams):
            # It may not be looked into any more: what was seen when it made itself so.
            last = self._table.attempts.get(who.pid, (b"", b"", b"", b""))
            streams = last[1], last[2], last[3]
        self._table.remember(self._table.attempts, who.pid, (path, *streams))
        self._put(slot, records.ATTEMPT, records.told(who, path, *streams))
        self.answer(slot)

    def _image(self, slot: Slot) -> None:
        """A new image, before its first instruction of its own; a possible remote shell waits for the agent."""
        tid = slot.tid
        place = proc.stat_fields(tid)
        if place is None or (tid not in self._table.attempts and evidence.leader(tid) != tid):
            self.answer(slot)
            return
        image = self._describe(slot, *place)
        held = _is_possible_remote_shell(image) and self._page.hold(self._index, slot.words[0])
        if held:
            image = image._replace(flags=image.flags | records.HELD)
        # Told first: what the image does next is told by another thread, and must not come before it.
        self._put(slot, records.IMAGE, records.image(image), urgent=held)
        if self._page.stand_down.is_open:
            self._stand_down(image)
        if image.flags & records.PRIVILEGED:
            rights.explain(tid, image.exe, image.streams[2], self._kernel)
        if held:
            slot.words[11] |= slot.ANSWERED  # by the agent, or when its time is over
        else:
            self.answer(slot)

    def _stand_down(self, image: records.Image) -> None:
        """Have the leases given up that a program which opens without blocking would fail on."""
        if self._page.stand_down.is_opener(image.who.pid):
            self._page.stand_down.ask(image.who.pid)
        elif openers.is_interpreter(image.exe):
            certain = openers.names_flag(image.argv)
            if certain or openers.script_of(image.argv.split(b"\0")):
                self._page.stand_down.ask(image.who.pid | (0 if certain else ONLY_LOOK))

    def _describe(self, slot: Slot, name: bytes, fields: List[bytes]) -> records.Image:
        """Return the image of a process, from its stat and what else can be read of it."""
        pid, start = slot.tid, int(fields[19])
        self._table.learn(pid, pid, start)
        base = b"/proc/%d/" % pid
        parent = int(fields[1])
        argv, environment = self._memory.start_of(pid, fields)
        attempted = self._table.attempts.pop(pid, (b"", b"", b"", b""))
        exe, streams, flags = evidence.link(base + b"exe"), evidence.streams(pid), 0
        if exe is None:
            flags, exe, streams = records.UNREADABLE, attempted[0], (attempted[1], attempted[2], attempted[3])
        elif evidence.gives_rights(pid):
            flags = records.PRIVILEGED
        return records.Image(
            who=records.Who(self._at, pid, pid, start, slot.words[0]),
            parent=parent,
            parent_start=self._table.of(parent)[1] if parent else 0,
            session=int(fields[3]),
            terminal=int(fields[4]),
            uid=evidence.owner(pid),
            flags=flags,
            name=name,
            exe=exe,
            cwd=evidence.link(base + b"cwd") or b"",
            streams=streams,
            preloads=evidence.preloads(environment),
            attempted=attempted[0],
            argv=argv,
        )

    def _hide(self, slot: Slot) -> None:
        """A process is about to become unreadable: tell what can be seen of it for the last time."""
        self._meet(slot)
        who = self._who(slot)
        exe, streams = evidence.link(b"/proc/%d/exe" % who.pid) or b"", evidence.streams(who.pid)
        self._table.remember(self._table.attempts, who.pid, (b"", *streams))
        self._put(slot, records.HIDDEN, records.told(who, exe, *streams))
        self.answer(slot)

    # Everything else

    def _foreign(self, slot: Slot) -> None:
        """A call by another architecture's numbers (32-bit, x32): its arguments cannot be judged."""
        self._refuse(slot, errno.ENOSYS, b"foreign-architecture", b"Number", b"%d" % slot.number)

    def _other(self, slot: Slot) -> None:
        """Refuse what is aimed at one of ours or goes around the filter; tell what is worth telling."""
        name = self._names.get(slot.number, "").encode()
        if name == b"io_uring_setup":
            self._refuse(slot, errno.ENOSYS, name)
            return
        arguments = slot.words[4:10].tolist()
        aimed = self._policy.target(slot.tid, slot.number, arguments, self._page.protected())
        if aimed:
            self._refuse(slot, errno.EPERM, name, b"Aimed", b"%d" % aimed)
            return
        self._meet(slot)
        told = self._particulars(slot, name, arguments)
        self.answer(slot)
        if told is not None:
            self._put(slot, records.CALL, records.told(self._who(slot), name, b"0", *told))

    def _particulars(self, slot: Slot, name: bytes, arguments: List[int]) -> List[bytes] | None:
        """Return what a call is about as keys and values, None where it need not be told."""
        tid, first, second = slot.tid, arguments[0], arguments[1]
        if name in (b"process_vm_readv", b"process_vm_writev"):
            return _target(policy.signed(first))
        if name == b"ptrace":
            request = {abi.PTRACE_ATTACH: b"attach", abi.PTRACE_SEIZE: b"seize"}.get(first & 0xFFFFFFFF, b"")
            return [b"Request", request, *_target(policy.signed(second))]
        if name == b"pidfd_getfd":
            target = evidence.process_of_descriptor(tid, policy.signed(first))
            return [*_target(target), b"TargetDescriptor", b"%d" % policy.signed(second)]
        if name == b"memfd_create":
            return [b"FileName", self._memory.text(tid, first, 256)]
        if name == b"unshare":
            return [b"Flags", b"%#x" % (first & 0xFFFFFFFF)]
        if name == b"setns":
            namespace = evidence.link(b"/proc/%d/fd/%d" % (tid, first & 0xFFFFFFFF)) or b""
            return [b"Namespace", namespace, b"Flags", b"%#x" % (second & 0xFFFFFFFF)]
        if name == b"mount":
            texts = [self._memory.text(tid, address, 1024) if address else b"" for address in arguments[:3]]
            return [b"Source", texts[0], b"Target", texts[1], b"FileSystem", texts[2]]
        if name == b"listen":
            return [b"Socket", b"%d" % evidence.socket_inode(tid, first & 0xFFFFFFFF)]
        return None

    def _refuse(self, slot: Slot, error: int, name: bytes, *told: bytes) -> None:
        self.answer(slot, error)
        self._put(slot, records.CALL, records.told(self._who(slot), name, b"1", *told))


def _target(pid: int) -> List[bytes]:
    """Return the process that a call is aimed at, and its parent: the agent may not have seen it yet."""
    place = proc.stat_fields(pid) if pid > 0 else None
    return [b"TargetProcessId", b"%d" % pid, *([b"TargetParentProcessId", place[1][1]] if place else [])]


def _now() -> int:
    return time.time_ns() // 1000000


def _is_possible_remote_shell(image: records.Image) -> bool:
    """Return whether standard input comes from a socket, or an interpreter's from a pipe or terminal."""
    source = image.streams[0]
    if source.startswith(b"socket:"):
        return True
    if not source.startswith((b"pipe:", b"/dev/pts/")):
        return False
    return image.exe.rpartition(b"/")[2].rstrip(b"0123456789.") in _INTERPRETERS


def take_over(witness: Witness, slot: Slot, listener: int, most: int = 64) -> int:
    """Serve what waits at a listener that nobody reads; return how many calls that were."""
    import select

    poll = select.poll()
    poll.register(listener, select.POLLIN)
    for served in range(most):
        ready = poll.poll(0)
        if not ready or not ready[0][1] & select.POLLIN:
            return served
        slot.clear()
        if seccomp.receive(listener, slot.address) or not slot.identity:
            return served
        witness.serve(slot)
    return most
