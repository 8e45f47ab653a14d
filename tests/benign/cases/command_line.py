"""What people type: downloads into pipes, shells fed from files, version control, builds."""

from __future__ import annotations

from benign.cases.base import Case
from live.programs import Language

CASES = (
    Case(
        name="curl-into-jq",
        resembles="a relay that feeds an interpreter: jq runs no commands",
        language=Language.BASH,
        programs=("curl", "jq"),
        text="""
            set -e
            curl -fsS -o data.json $WEB/slow/data.json
            curl -fsS $WEB/slow/data.json | jq .rows > rows
            echo "rows: $(cat rows)"
        """,
        expects="rows: 100",
    ),
    Case(
        name="curl-into-tar",
        resembles="a relay that feeds a program",
        language=Language.BASH,
        programs=("curl", "tar"),
        text="""
            set -eo pipefail
            curl -fsS $WEB/slow/data.tar | tar xf -
            echo "parts: $(cat part-*.csv | wc -c)"
        """,
        expects="parts: 100000",
    ),
    Case(
        name="curl-into-read-loop",
        resembles="curl that relays commands to a shell: here the shell takes data, and answers nobody",
        language=Language.BASH,
        programs=("curl",),
        text="""
            curl -fsSN $WEB/slow/lines.txt | sh -c 'while read -r word number; do echo "$number $word"; done' > turned
            tail -n 1 turned
        """,
        expects="199 line",
    ),
    Case(
        name="shell-output-into-curl",
        resembles="the way back of a relayed shell: nothing remote feeds this one",
        language=Language.BASH,
        programs=("curl",),
        text="""
            bash -c 'for step in {1..15}; do echo "loss $step"; sleep 0.1; done' | curl -fsS -T - $WEB/metrics
        """,
        expects="got 111",
    ),
    Case(
        name="bash-waits-for-port",
        resembles="a shell on /dev/tcp: it only knocks",
        language=Language.BASH,
        text="""
            place=${WEB#http://}
            for try in {1..10}; do
                timeout 2 bash -c "exec 3<>/dev/tcp/${place%:*}/${place#*:}" && echo "open $try"
                sleep 0.1
            done
        """,
        expects="open 10",
    ),
    Case(
        name="bash-speaks-http",
        resembles="a shell on /dev/tcp: the socket is at another descriptor, and what comes is printed",
        language=Language.BASH,
        text="""
            place=${WEB#http://}
            exec 3<>/dev/tcp/${place%:*}/${place#*:}
            printf 'GET /slow/lines.txt HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' >&3
            cat <&3
        """,
        expects="line 199",
    ),
    Case(
        name="netcat-copies-file",
        resembles="a bind shell by netcat: no shell is joined to it",
        language=Language.BASH,
        programs=("nc.openbsd",),
        text="""
            port=$((20000 + RANDOM % 10000))
            timeout 20 nc.openbsd -l 127.0.0.1 $port > copy &
            seq 5000 > numbers
            until (cat numbers; sleep 1.5) | nc.openbsd -N 127.0.0.1 $port; do sleep 0.1; done
            wait
            cmp numbers copy && echo same
        """,
        expects="same",
    ),
    Case(
        name="here-document-and-bash-s",
        resembles="a shell whose commands come through a pipe",
        language=Language.BASH,
        text="""
            bash <<'END'
            sleep 1
            echo from here
            END
            echo 'sleep 1; echo "file $1"' > steps
            bash -s one < steps
        """,
        expects="from here\nfile one",
    ),
    Case(
        name="script-into-bash",
        resembles="a shell whose commands come through a pipe: from a file of this machine",
        language=Language.BASH,
        text="""
            printf 'echo begin\\nsleep 2\\necho end\\n' > steps.sh
            cat steps.sh | bash
        """,
        expects="begin\nend",
    ),
    Case(
        name="slow-generator-into-sh",
        resembles="a relay with pauses between its commands",
        language=Language.BASH,
        text='(for n in {1..8}; do echo "echo order $n"; sleep 0.25; done) | sh',
        expects="order 8",
    ),
    Case(
        name="fifo-between-shells",
        resembles="the fifo of a netcat shell: without a netcat",
        language=Language.BASH,
        text="""
            mkfifo down up
            sh <down >up 2>&1 &
            exec 7>down 8<up
            echo 'sleep 2; echo through the fifo' >&7
            read -r line <&8 && echo "$line"
            echo exit >&7
        """,
        expects="through the fifo",
    ),
    Case(
        name="coprocess-calculator",
        resembles="a coprocess shell",
        language=Language.BASH,
        text="""
            coproc CALC { bash --norc; }
            for n in 1 2 3 4; do
                echo "echo \\$(($n * $n))" >&${CALC[1]}
                read -r square <&${CALC[0]}
                sleep 0.5
            done
            echo "last $square"
        """,
        expects="last 16",
    ),
    Case(
        name="background-jobs",
        resembles="shells that outlive their script",
        language=Language.BASH,
        text="""
            for n in 1 2 3 4; do (sleep 1.5; echo job $n >> log) & done
            nohup sh -c 'sleep 1.5; echo done >> log' > nohup.log 2>&1 &
            wait
            wc -l < log
        """,
        expects="5",
    ),
    Case(
        name="xargs-parallel",
        resembles="many short shells",
        language=Language.BASH,
        programs=("xargs",),
        text="seq 40 | xargs -P 4 -I@ sh -c 'sleep 0.1; echo $((@ * 2))' | sort -n | tail -n 1",
        expects="80",
    ),
    Case(
        name="make-parallel",
        resembles="many short shells on the job server's pipe",
        language=Language.BASH,
        programs=("make",),
        text="""
            printf 'all: a b c d\\na b c d:\\n\\t@sleep 1 && cat /dev/null && echo made $@ | tee $@\\n' > Makefile
            make -j 4 | sort | tail -n 1
        """,
        expects="made d",
    ),
    Case(
        name="tail-follows-log",
        resembles="tail -f as the pipe of a relay: it feeds a loop that runs nothing",
        language=Language.BASH,
        text="""
            : > log
            (for n in {1..10}; do echo "epoch $n" >> log; sleep 0.2; done) &
            timeout 4 tail -n +1 -f log | while read -r _ n; do [ "$n" = 10 ] && echo ten && break; done
        """,
        expects="ten",
    ),
    Case(
        name="git-clone-file",
        resembles="a program joined to another by pipes",
        language=Language.BASH,
        programs=("git",),
        text="""
            set -e
            export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
            git init -q one && echo 1 > one/a && git -C one add a && git -C one commit -qm first
            git clone -q "file://$PWD/one" two
            echo 2 > one/a && git -C one commit -qam second && git -C two pull -q
            git -C two log --format=%s | head -n 1
        """,
        expects="second",
    ),
    Case(
        name="git-over-own-transport",
        resembles="sh -c at the end of a transport, as ssh has it",
        language=Language.BASH,
        programs=("git",),
        text="""
            set -e
            export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
            git init -q one && git -C one commit -q --allow-empty -m first
            printf '#!/bin/sh\\nshift\\nsleep 1.5\\nexec sh -c "$*"\\n' > transport && chmod +x transport
            GIT_SSH_VARIANT=simple GIT_SSH=$PWD/transport git clone -q "server:$PWD/one" two
            git -c protocol.ext.allow=always clone -q "ext::git-upload-pack $PWD/one" three
            git -C two log --format=%s && git -C three log --format=%s
        """,
        expects="first\nfirst",
    ),
    Case(
        name="git-hooks",
        resembles="shells with pipes for standard streams",
        language=Language.BASH,
        programs=("git",),
        text="""
            set -e
            export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
            git init -q --bare target && git init -q one && cd one
            printf '#!/bin/sh\\nwhile read -r line; do sleep 1; echo "hook: $1" >&2; done\\n' > .git/hooks/pre-push
            cp .git/hooks/pre-push ../target/hooks/pre-receive && chmod +x .git/hooks/* ../target/hooks/pre-receive
            git commit -q --allow-empty -m first
            git push -q ../target HEAD:main
        """,
        expects="hook:",
    ),
    Case(
        name="ssh-to-closed-port",
        resembles="a shell's transport",
        language=Language.BASH,
        programs=("ssh", "user-name"),
        text="ssh -o BatchMode=yes -o ConnectTimeout=2 -p 9 127.0.0.1 true || echo refused $?",
        expects="refused 255",
    ),
    Case(
        name="ssh-agent",
        resembles="a shell below a process with a listening unix socket",
        language=Language.BASH,
        programs=("ssh-agent", "ssh-keygen"),
        text="""
            ssh-keygen -q -t ed25519 -N '' -f key
            ssh-agent bash -c 'ssh-add -q key; sleep 1; ssh-add -l'
        """,
        expects="ED25519",
    ),
)
