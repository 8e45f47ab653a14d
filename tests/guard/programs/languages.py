"""Other languages: their interpreters and run times, each with a child, a connection and an exit code."""

import inspect

from guard.programs.case import Case, sh


def built(name: str, file: str, text: str, build: tuple[str, ...], command: tuple[str, ...], *needs: str) -> Case:
    """Return a case of a program that is compiled first."""
    return Case(name=name, command=command, needs=needs, source=(file, inspect.cleandoc(text) + "\n"), build=build)


_GO = """
package main
import ("fmt"; "net"; "os"; "os/exec"; "os/signal"; "sync"; "syscall"; "time")
func main() {
    out, err := exec.Command("sh", "-c", "echo child; exit 3").Output()
    fmt.Printf("%s%v\\n", out, err)
    _, err = exec.Command("/no/such").Output()
    fmt.Println(err)
    _, err = net.Dial("tcp", "127.0.0.1:1")
    fmt.Println(err)
    l, _ := net.Listen("tcp", "127.0.0.1:0")
    go func() { for { c, e := l.Accept(); if e != nil { return }; go func() { b := make([]byte, 9); n, _ := c.Read(b); c.Write(b[:n]); c.Close() }() } }()
    var group sync.WaitGroup
    var lock sync.Mutex
    sum := 0
    for i := 0; i < 100; i++ {
        group.Add(1)
        go func() {
            defer group.Done()
            c, e := net.Dial("tcp", l.Addr().String())
            if e != nil { fmt.Println(e); return }
            c.Write([]byte("hello")); b := make([]byte, 9); n, _ := c.Read(b); c.Close()
            p := exec.Command("true"); e = p.Run()
            lock.Lock(); if e == nil { sum += n }; lock.Unlock()
        }()
    }
    group.Wait()
    fmt.Println(sum)
    s := make(chan os.Signal, 1)
    signal.Notify(s, syscall.SIGTERM)
    syscall.Kill(os.Getpid(), syscall.SIGTERM)
    select { case x := <-s: fmt.Println(x); case <-time.After(30 * time.Second): fmt.Println("none") }
    syscall.Exec("/bin/sh", []string{"sh", "-c", "exit 4"}, os.Environ())
}
"""
_JAVA = """
import java.io.*; import java.net.*; import java.util.concurrent.*;
public class Main {
    public static void main(String[] a) throws Exception {
        Process p = new ProcessBuilder("sh", "-c", "echo child; exit 3").start();
        System.out.println(new String(p.getInputStream().readAllBytes()) + p.waitFor());
        try { new ProcessBuilder("/no/such").start(); } catch (IOException e) { System.out.println(e.getMessage()); }
        try { new Socket("127.0.0.1", 1); } catch (IOException e) { System.out.println(e.getMessage()); }
        ServerSocket s = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        ExecutorService pool = Executors.newFixedThreadPool(8);
        pool.submit(() -> { while (true) { Socket c = s.accept(); c.getOutputStream().write(7); c.close(); } });
        int sum = 0;
        for (int i = 0; i < 50; i++) try (Socket c = new Socket(s.getInetAddress(), s.getLocalPort())) { sum += c.getInputStream().read(); }
        System.out.println(sum);
        Process q = new ProcessBuilder("sleep", "50").start(); q.destroy(); System.out.println(q.waitFor());
        System.exit(5);
    }
}
"""
_NODE = r"""
const { spawn, spawnSync, execSync, fork } = require('child_process'), net = require('net');
console.log(execSync('echo child').toString(), spawnSync('sh', ['-c', 'exit 3']).status, spawnSync('/no/such').error.code);
const server = net.createServer(c => c.pipe(c)).listen(0, '127.0.0.1', () => {
  let left = 50;
  for (let i = 0; i < 50; i++) {
    const c = net.connect(server.address().port, '127.0.0.1', () => c.end('x'));
    c.on('data', d => { if (!--left) { console.log('all'); server.close(refused); } });
  }
});
function refused() { net.connect(1, '127.0.0.1').on('error', e => { console.log(e.code); killed(); }); }
function killed() { const p = spawn('sleep', ['50']); p.on('exit', (c, s) => { console.log(c, s); process.exit(6); }); p.kill(); }
"""
_PERL = r"""
print `echo child`; system('sh', '-c', 'exit 3'); print $? >> 8, "\n";
system({'/no/such'} 'x'); print "$!\n";
my $p = fork; if (!$p) { exec 'sleep', '50' } kill 'TERM', $p; waitpid $p, 0; print $? & 127, "\n";
use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0); connect($s, sockaddr_in(1, INADDR_LOOPBACK)) or print "$!\n";
eval { local $SIG{ALRM} = sub { die "late\n" }; alarm 1; select undef, undef, undef, 50; }; print $@;
open my $c, '-|', 'seq 3'; print while <$c>; close $c; exit 4;
"""
_RUBY = r"""
require 'open3'; require 'socket'; require 'timeout'
puts `echo child`; system('exit 3'); puts $?.exitstatus; p system('/no/such')
begin; TCPSocket.new('127.0.0.1', 1); rescue => e; puts e.class; end
i = fork { exit 7 }; Process.wait i; puts $?.exitstatus
i = spawn('sleep', '50'); Process.kill(:TERM, i); Process.wait i; puts $?.termsig
o, s = Open3.capture2('cat', stdin_data: 'through'); puts o
begin; Timeout.timeout(0.3) { sleep 50 }; rescue Timeout::Error; puts 'late'; end
puts 20.times.map { Thread.new { `echo x` } }.map(&:value).join.size
exit 4
"""
_PHP = r"""
echo shell_exec('echo child'); exec('exit 3', $o, $c); echo "$c\n";
$p = proc_open(['cat'], [['pipe', 'r'], ['pipe', 'w']], $f); fwrite($f[0], 'through'); fclose($f[0]); echo stream_get_contents($f[1]), proc_close($p), "\n";
var_dump(@fsockopen('127.0.0.1', 1, $n, $e), $n, $e);
$s = stream_socket_server('tcp://127.0.0.1:0'); $c = stream_socket_client(stream_socket_get_name($s, false)); $a = stream_socket_accept($s); fwrite($a, "x\n"); echo fgets($c);
exit(5);
"""
_TCL = r"""
puts [exec echo child]; catch {exec sh -c {exit 3}} e o; puts [lindex [dict get $o -errorcode] 2]
catch {exec /no/such} e; puts $e; catch {socket 127.0.0.1 1} e; puts $e
set f [open "|cat" r+]; puts $f through; flush $f; puts [gets $f]; close $f
proc accept {c a p} {puts $c served; close $c}; set s [socket -server accept -myaddr 127.0.0.1 0]
set c [socket -async 127.0.0.1 [lindex [fconfigure $s -sockname] 2]]; fileevent $c readable {puts [gets $c]; set done 1}; vwait done; exit 4
"""
_LUA = "print(io.popen('echo child'):read('a')); print(os.execute('exit 3')); print(os.execute('kill -TERM $$')); local s = require('socket'); print(s.connect('127.0.0.1', 1)); os.exit(4)"
_R = "cat(system('echo child', intern = TRUE), system('exit 3'), '\\n'); r <- tryCatch(suppressWarnings(socketConnection('127.0.0.1', 1, timeout = 5)), error = function(e) 'refused'); print(r); p <- parallel::mcparallel(1 + 1); print(unname(unlist(parallel::mccollect(p)))); print(system2('sh', c('-c', shQuote('exit 7')))); quit(status = 5)"
CASES = (
    built(
        "go program, static",
        "main.go",
        _GO,
        ("env", "CGO_ENABLED=0", "GO111MODULE=off", "go", "build", "-o", "main", "main.go"),
        ("../made/main",),
        "go",
    ),
    built(
        "go program with C",
        "main.go",
        _GO,
        ("env", "CGO_ENABLED=1", "GO111MODULE=off", "go", "build", "-tags", "netcgo", "-o", "main", "main.go"),
        ("../made/main",),
        "go",
        "gcc",
    ),
    sh(
        "go build",
        "printf 'package main\\nfunc main() { println(\"built\") }\\n' > m.go; GO111MODULE=off go build -o m m.go; ./m; GO111MODULE=off go vet m.go; printf 'package main\\nfunc main() { x }\\n' > n.go; GO111MODULE=off go build n.go; echo $?",
        "go",
    ),
    built(
        "java",
        "Main.java",
        _JAVA,
        ("javac", "Main.java"),
        ("java", "-Xmx256m", "-XX:-UsePerfData", "-cp", "../made", "Main"),
        "javac",
        "java",
    ),
    sh(
        "javac",
        "printf 'class A { public static void main(String[] a) { System.out.println(6 * 7); } }' > A.java; javac -J-XX:-UsePerfData A.java && java -XX:-UsePerfData -Xint A",
        "javac",
        "java",
    ),
    sh("node", 'node -e \'console.log(require("child_process").execSync("echo n").toString())\'', "node"),
    Case(name="node with everything", command=("node", "-e", _NODE), needs=("node",)),
    sh(
        "node with workers",
        'node -e \'const { Worker } = require("worker_threads"); let n = 0; for (let i = 0; i < 4; i++) new Worker("require(\\"worker_threads\\").parentPort.postMessage(1)", { eval: true }).on("message", m => (n += m) == 4 && console.log(n))\'',
        "node",
    ),
    sh(
        "node names",
        'node -e \'require("dns").lookup("localhost", { family: 4 }, (e, a) => console.log(e, a))\'',
        "node",
    ),
    Case(name="perl", command=("perl", "-e", _PERL), needs=("perl",)),
    Case(name="ruby", command=("ruby", "-e", _RUBY), needs=("ruby",)),
    Case(name="php", command=("php", "-n", "-r", _PHP), needs=("php",)),
    Case(name="tcl", command=("sh", "-c", 'printf %s "$0" | tclsh', _TCL), needs=("tclsh",)),
    Case(name="lua", command=("lua5.4", "-e", _LUA), needs=("lua5.4",)),
    Case(name="R", command=("R", "--vanilla", "-s", "-e", _R), needs=("R",)),
    sh(
        "Rscript",
        "Rscript --vanilla -e 'x <- lm(dist ~ speed, cars); print(coef(x)); quit(status = 3)'; echo $?; Rscript -e 'stop(1)' 2>/dev/null; echo $?",
        "Rscript",
    ),
    sh(
        "awk",
        'gawk \'BEGIN { "echo child" | getline x; print x; print system("exit 3"); print 1 | "cat"; close("cat"); s = "/inet/tcp/0/127.0.0.1/1"; print (s |& getline) > 0; exit 4 }\'; echo $?; mawk \'BEGIN { print system("exit 2") }\'',
        "gawk",
        "mawk",
    ),
    sh(
        "zsh",
        "zsh -f -c 'echo *(N) $ZSH_SUBSHELL; (exit 3); echo $?; zmodload zsh/net/tcp; ztcp 127.0.0.1 1; echo $?; a=(1 2 3); print -l $a; sleep 50 & kill $!; wait $!; echo $?'",
        "zsh",
    ),
    sh("dash", 'dash -c \'x=$(exit 3); echo $?; trap "echo bye" EXIT; exec dash -c "exit 4"\'; echo $?', "dash"),
    sh(
        "ksh",
        "ksh -c 'echo x | read y; echo $y; (exit 3); echo $?; sleep 50 & kill $!; wait $!; echo $?'",
        "ksh",
        varies=((r"wait: \d+", "wait: PID"),),
    ),
    sh("fish", "fish --no-config -c 'for i in (seq 3); echo n$i; end; false; echo $status; exit 4'; echo $?", "fish"),
    sh(
        "busybox",
        "busybox sh -c 'echo $((1 << 40)); busybox true; busybox false; echo $?; seq 3 | busybox tac; busybox timeout 1 busybox sleep 50; echo $?'",
        "busybox",
    ),
    sh(
        "busybox network",
        "busybox nc 127.0.0.1 1 2>&1 | sed 's/^nc: //'; busybox wget -q -O - http://127.0.0.1:1/; echo $?",
        "busybox",
    ),
    sh(
        "expect",
        "expect -c 'log_user 0; spawn env PS1=ready> sh; expect ready>; send {echo a$((6*7))b}; send \\r; expect a42b {puts found} timeout {puts late}; send \"exit 3\\r\"; expect eof; puts [lindex [wait] 3]'",
        "expect",
    ),
    sh("bc", "echo '2^200; scale=9; 1/3' | bc", "bc"),
    sh("jq", "echo '{\"a\": [1, 2, {\"b\": null}]}' | jq -c '.a[2], (.a | length)'; echo nope | jq . ; echo $?", "jq"),
    sh(
        "sed and grep",
        "seq 30 | sed -n '5,7p;$p'; seq 9 | sed '1e echo executed' | head -2; grep -q x /dev/null; echo $?; printf 'w echo\\n' | sed -f - /dev/null; echo $?",
    ),
)
