"""The network, loopback only: every way to connect, to send and to serve."""

from guard.programs.case import c, py, sh

_SERVER = """
import socket, threading
server = socket.create_server(('127.0.0.1', 0)); address = server.getsockname()
def serve():
    while True:
        try: a, _ = server.accept()
        except OSError: return
        with a:
            while d := a.recv(65536): a.sendall(d)
threading.Thread(target=serve, daemon=True).start()
"""


def echo(script: str) -> str:
    """Return a script that has an echo server at `address`."""
    return _SERVER + script


CASES = (
    sh("refused connection", "(exec 3<>/dev/tcp/127.0.0.1/1) 2>/dev/null; echo $?"),
    sh("curl, refused", "curl -s http://127.0.0.1:1/; echo $?", "curl"),
    sh("curl of a file", "echo x > f; curl -s file://$PWD/f; curl -s file:///no/such; echo $?", "curl"),
    sh("nc, refused", "nc -z 127.0.0.1 1; echo $?", "nc"),
    sh(
        "socat, there and back",
        "socat UNIX-LISTEN:s,fork EXEC:cat & p=$!; until [ -S s ]; do sleep 0.05; done; echo through | socat -t 5 - UNIX-CONNECT:s; kill $p",
        "socat",
    ),
    sh("ssh, refused", "ssh -p 1 -o BatchMode=yes 127.0.0.1 true; echo $?", "ssh"),
    py(
        "server and client",
        "import socket\ns = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); a, _ = s.accept(); a.sendall(b'x'); print(c.recv(1))",
    ),
    py(
        "echo",
        echo("c = socket.create_connection(address); c.sendall(b'there and back'); print(c.recv(99)); c.close()"),
    ),
    py(
        "many connections at once",
        "import socket; l = socket.create_server(('127.0.0.1', 0), backlog=128); cs = [socket.create_connection(l.getsockname()) for _ in range(100)]; ss = [l.accept()[0] for _ in cs]; [c.sendall(b'x') for c in cs]; print(sum(len(s.recv(9)) for s in ss))",
    ),
    py(
        "threads that connect",
        "import socket, threading\nr = []\ndef f():\n    s = socket.socket(); r.append(s.connect_ex(('127.0.0.1', 1))); s.close()\nt = [threading.Thread(target=f) for _ in range(40)]\n[x.start() for x in t]; [x.join() for x in t]; print(sorted(r))",
    ),
    py(
        "connect and its second time",
        echo("c = socket.socket(); print(c.connect_ex(address), c.connect_ex(address), c.getpeername() == address)"),
    ),
    py(
        "connect to oneself, then listen",
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.connect(s.getsockname()); s.send(b'me'); print(s.recv(9))\ntry: s.listen()\nexcept OSError as e: print(e)",
    ),
    py(
        "connect without address",
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.connect(3, 8, 16), ctypes.get_errno()); import socket; s = socket.socket(); print(l.connect(s.fileno(), 8, 16), ctypes.get_errno())",
    ),
    py(
        "connect with lengths that are wrong",
        "import ctypes, socket; l = ctypes.CDLL(None, use_errno=True); s = socket.socket(); b = ctypes.create_string_buffer(200)\nfor n in (0, 1, 2, 15, 16, 128, 129, -1): print(n, l.connect(s.fileno(), b, n), ctypes.get_errno())",
    ),
    py(
        "connect of what is no socket",
        "import ctypes, os; l = ctypes.CDLL(None, use_errno=True); b = ctypes.create_string_buffer(b'\\x02\\x00\\x00\\x01\\x7f\\x00\\x00\\x01', 16)\nfor f in (0, 999, -1, os.open('/', 0)): print(l.connect(f, b, 16), ctypes.get_errno())",
    ),
    py(
        "unspecified family ends an association",
        "import ctypes, socket; l = ctypes.CDLL(None, use_errno=True); s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9)); print(l.connect(s.fileno(), b'\\0' * 16, 16))\ntry: s.getpeername()\nexcept OSError as e: print(e)",
    ),
    py(
        "address of another family",
        "import ctypes, socket; l = ctypes.CDLL(None, use_errno=True); s = socket.socket(); print(l.connect(s.fileno(), b'\\x0a\\0' + b'\\0' * 26, 28), ctypes.get_errno())",
    ),
    py(
        "unreachable",
        "import socket\nfor a in (('255.255.255.255', 1), ('0.0.0.0', 1), ('224.0.0.1', 1)): print(socket.socket().connect_ex(a))",
    ),
    py(
        "ipv6",
        "import socket; s = socket.socket(socket.AF_INET6); print(s.connect_ex(('::1', 1)), socket.socket(socket.AF_INET6).connect_ex(('::ffff:127.0.0.1', 1)))",
    ),
    py(
        "unix socket",
        "import socket; s = socket.socket(socket.AF_UNIX); print(s.connect_ex('/nonexistent'), s.connect_ex('/etc/passwd'), s.connect_ex('/'))",
    ),
    py(
        "unix socket that serves",
        "import socket; l = socket.socket(socket.AF_UNIX); l.bind('s'); l.listen(); c = socket.socket(socket.AF_UNIX); c.connect('s'); a, _ = l.accept(); c.send(b'x'); print(a.recv(9), a.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4) == __import__('os').getpid().to_bytes(4, 'little'))",
    ),
    py(
        "unix datagrams",
        "import socket; a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind('d'); b = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); b.sendto(b'x', 'd'); print(a.recv(9)); b.connect('d'); b.send(b'y'); print(a.recv(9))\ntry: b.sendto(b'x', 'none')\nexcept OSError as e: print(e)",
    ),
    py(
        "abstract socket",
        "import os, socket; n = f'\\0nbs-test-{os.getpid()}'; l = socket.socket(socket.AF_UNIX); l.bind(n); l.listen(); s = socket.socket(socket.AF_UNIX); print(s.connect_ex(n), s.connect_ex(n + 'x'))",
    ),
    py(
        "full queue",
        "import socket; l = socket.socket(socket.AF_UNIX); l.bind('q'); l.listen(0); a, b, c = (socket.socket(socket.AF_UNIX) for _ in 'abc'); [x.setblocking(False) for x in (a, b, c)]; print([x.connect_ex('q') for x in (a, b, c)])",
    ),
    py(
        "descriptors through a socket",
        "import os, socket; a, b = socket.socketpair(); r, w = os.pipe()\nif not os.fork():\n    _, f, _, _ = socket.recv_fds(b, 9, 2); os.write(f[0], b'passed'); os._exit(0)\nsocket.send_fds(a, [b'x'], [w]); print(os.read(r, 9)); os.wait()",
    ),
    py(
        "credentials through a socket",
        "import os, socket, struct; a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); b.setsockopt(1, 16, 1); a.sendmsg([b'x'], [(1, 2, struct.pack('3i', os.getpid(), os.getuid(), os.getgid()))]); d = b.recvmsg(9, 99)[1][0][2]; print(struct.unpack('3i', d) == (os.getpid(), os.getuid(), os.getgid()))",
    ),
    py(
        "udp",
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9)); print(s.getpeername()); s.connect(('127.0.0.1', 10)); print(s.getpeername())",
    ),
    py(
        "udp with an address",
        "import socket; a, b = (socket.socket(type=socket.SOCK_DGRAM) for _ in 'ab'); a.bind(('127.0.0.1', 0)); print(b.sendto(b'hello', a.getsockname())); d, p = a.recvfrom(99); a.sendto(d + b'!', p); print(b.recv(99))",
    ),
    py(
        "udp with an address, many",
        "import socket; a, b = (socket.socket(type=socket.SOCK_DGRAM) for _ in 'ab'); a.bind(('127.0.0.1', 0)); n = 0\nfor i in range(2000): b.sendto(b'%d' % i, a.getsockname()); n += int(a.recv(9))\nprint(n)",
    ),
    py(
        "udp, refused",
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', 1)); s.send(b'x'); s.settimeout(20)\ntry: s.recv(9)\nexcept OSError as e: print(e)",
    ),
    py(
        "udp that is too long",
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM)\nfor n in (0, 1000, 65508):\n    try: print(s.sendto(b'x' * n, ('127.0.0.1', 9)))\n    except OSError as e: print(e)",
    ),
    py(
        "sendmsg with an address",
        "import socket; a, b = (socket.socket(type=socket.SOCK_DGRAM) for _ in 'ab'); a.bind(('127.0.0.1', 0)); print(b.sendmsg([b'one', b'two'], [], 0, a.getsockname()), a.recv(99))",
    ),
    py(
        "sendto with an address on a stream",
        echo(
            "s = socket.socket()\ntry: s.sendto(b'x', address)\nexcept OSError as e: print(e)\ns.connect(address); print(s.sendto(b'y', ('127.0.0.1', 1)), s.recv(9))"
        ),
    ),
    py(
        "fast open",
        echo(
            "s = socket.socket(); print(s.sendto(b'early', socket.MSG_FASTOPEN, address)); print(s.recv(9), s.getpeername() == address)"
        ),
    ),
    py(
        "fast open, refused",
        "import socket; s = socket.socket()\ntry: print(s.sendto(b'early', socket.MSG_FASTOPEN, ('127.0.0.1', 1)))\nexcept OSError as e: print(e)",
    ),
    py(
        "fast open with sendmsg",
        echo(
            "s = socket.socket(); print(s.sendmsg([b'ear', b'ly'], [], socket.MSG_FASTOPEN, address)); print(s.recv(9))"
        ),
    ),
    py(
        "fast open without blocking",
        echo(
            "s = socket.socket(); s.setblocking(False)\ntry: print(s.sendto(b'early', socket.MSG_FASTOPEN, address))\nexcept OSError as e: print(e)"
        ),
    ),
    py(
        "fast open with a way back",
        echo(
            "s = socket.socket()\ntry: s.sendto(b'early', socket.MSG_FASTOPEN, address)\nexcept OSError: s.connect(address); s.sendall(b'early')\nprint(s.recv(9))"
        ),
    ),
    py(
        "fast open by option",
        echo(
            "s = socket.socket(); s.setsockopt(socket.IPPROTO_TCP, 30, 1); s.connect(address); s.sendall(b'lazy'); print(s.recv(9))"
        ),
    ),
    py(
        "non-blocking",
        "import socket; s = socket.socket(); s.setblocking(False); print(s.connect_ex(('127.0.0.1', 1)) in (111, 115))",
    ),
    py(
        "non-blocking, then select",
        echo(
            "import select; s = socket.socket(); s.setblocking(False); print(s.connect_ex(address)); select.select([], [s], [], 20); print(s.getsockopt(1, 4), s.connect_ex(address), s.getpeername() == address)"
        ),
    ),
    py(
        "non-blocking, refused, then epoll",
        "import select, socket; s = socket.socket(); s.setblocking(False); e = select.epoll(); e.register(s, select.EPOLLOUT); n = s.connect_ex(('127.0.0.1', 1)); e.poll(20); print(n, s.getsockopt(1, 4))",
    ),
    py(
        "non-blocking while in progress",
        "import socket; l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(0); f = [socket.socket() for _ in range(3)]; [x.setblocking(False) for x in f]; print([x.connect_ex(l.getsockname()) for x in f], f[2].connect_ex(l.getsockname()))",
    ),
    py(
        "time-out",
        "import socket\ntry: socket.create_connection(('127.0.0.1', 1), timeout=1)\nexcept OSError as e: print(e)",
    ),
    py(
        "time-out of a full server",
        "import socket; l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(0); f = [socket.socket() for _ in range(3)]; [x.setblocking(False) or x.connect_ex(l.getsockname()) for x in f]\ntry: socket.create_connection(l.getsockname(), timeout=0.5)\nexcept OSError as e: print(type(e).__name__, e)",
    ),
    py(
        "time-out of the socket",
        "import errno, socket, struct; l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(0); f = [socket.socket() for _ in range(3)]; [x.setblocking(False) or x.connect_ex(l.getsockname()) for x in f]; s = socket.socket(); s.setsockopt(1, 21, struct.pack('ll', 0, 300000)); print(errno.errorcode[s.connect_ex(l.getsockname())])",
    ),
    py(
        "listening",
        "import socket; s = socket.socket(); s.listen(); print(s.getsockname()[1] > 0); u = socket.socket(type=socket.SOCK_DGRAM)\ntry: u.listen()\nexcept OSError as e: print(e)\nb = socket.socket(); b.bind(('127.0.0.1', 0))\ntry: c = socket.socket(); c.bind(b.getsockname())\nexcept OSError as e: print(e)\nb.listen(-1); b.listen(10**6); print('ok')",
    ),
    py(
        "port below 1024",
        "import socket\ntry: socket.create_server(('127.0.0.1', 77)).close(); print('bound')\nexcept OSError as e: print(e)",
    ),
    py(
        "raw socket",
        "import socket\ntry: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print('made')\nexcept OSError as e: print(e)",
    ),
    py(
        "netlink",
        "import socket; s = socket.socket(16, 3, 0); s.bind((0, 0)); print(s.sendto(b'\\x14\\0\\0\\0\\x12\\0\\x01\\x03' + b'\\0' * 12, (0, 0)), len(s.recv(9999)) > 0); print(len(socket.if_nameindex()) > 0)",
    ),
    py(
        "name lookup",
        "import socket; print(socket.gethostbyname('localhost'), socket.getaddrinfo('127.0.0.1', 80, type=socket.SOCK_STREAM)); print(socket.getservbyname('http'))",
    ),
    py(
        "asyncio server",
        "import asyncio\nasync def f():\n    async def h(r, w): w.write((await r.readline()).upper()); await w.drain(); w.close()\n    s = await asyncio.start_server(h, '127.0.0.1', 0); p = s.sockets[0].getsockname()[1]\n    async def one(i):\n        r, w = await asyncio.open_connection('127.0.0.1', p); w.write(b'n%d\\n' % i); d = await r.read(); w.close(); return d\n    print(sorted(await asyncio.gather(*map(one, range(50))))[:3])\nasyncio.run(f())",
    ),
    py(
        "asyncio datagrams",
        "import asyncio\nclass P(asyncio.DatagramProtocol):\n    def __init__(s): s.got = asyncio.get_running_loop().create_future()\n    def connection_made(s, t): s.t = t\n    def datagram_received(s, d, a): s.got.done() or s.got.set_result(d)\nasync def f():\n    l = asyncio.get_running_loop(); t, p = await l.create_datagram_endpoint(P, ('127.0.0.1', 0)); u, q = await l.create_datagram_endpoint(P, ('127.0.0.1', 0)); u.sendto(b'x', t.get_extra_info('sockname')); print(await asyncio.wait_for(p.got, 20)); t.close(); u.close()\nasyncio.run(f())",
    ),
    py(
        "web server and client",
        "import http.server, threading, urllib.request, urllib.error\nclass H(http.server.BaseHTTPRequestHandler):\n    def do_GET(s): s.send_response(404 if s.path == '/no' else 200); s.end_headers(); s.wfile.write(s.path.encode())\n    def log_message(s, *a): pass\nw = http.server.ThreadingHTTPServer(('127.0.0.1', 0), H); threading.Thread(target=w.serve_forever, daemon=True).start(); b = f'http://127.0.0.1:{w.server_port}'; o = urllib.request.build_opener(urllib.request.ProxyHandler({}))\nprint(o.open(b + '/yes').read())\ntry: o.open(b + '/no')\nexcept urllib.error.HTTPError as e: print(e)",
    ),
    py(
        "server that forks",
        "import os, socket, socketserver, threading\nclass H(socketserver.StreamRequestHandler):\n    def handle(s): s.wfile.write(s.rfile.readline()[::-1])\nclass S(socketserver.ForkingMixIn, socketserver.TCPServer): pass\ns = S(('127.0.0.1', 0), H); threading.Thread(target=s.serve_forever, daemon=True).start()\nfor _ in range(10):\n    c = socket.create_connection(s.server_address); c.sendall(b'abc\\n'); d = c.recv(9)\nprint(d); s.shutdown()",
    ),
    py(
        "shell on a socket pair",
        "import socket, subprocess; a, b = socket.socketpair(); p = subprocess.Popen(['sh'], stdin=b, stdout=b, stderr=b); b.close(); a.sendall(b'echo $((6*7)); nope; exit 3\\n'); d = b''\nwhile x := a.recv(99): d += x\nprint(d, p.wait())",
    ),
    py(
        "inetd",
        "import socket, subprocess; l = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname()); a, _ = l.accept(); p = subprocess.Popen(['cat'], stdin=a, stdout=a); a.close(); c.sendall(b'x'); print(c.recv(9)); c.shutdown(1); print(c.recv(9), p.wait())",
    ),
    c(
        "sendmmsg",
        r"""
        int main(void) {
            int in = socket(AF_INET, SOCK_DGRAM, 0), out = socket(AF_INET, SOCK_DGRAM, 0);
            struct sockaddr_in to = local(0); socklen_t n = sizeof to;
            bind(in, (void *)&to, n); getsockname(in, (void *)&to, &n);
            struct iovec v[3] = { { "a", 1 }, { "bb", 2 }, { "ccc", 3 } };
            struct mmsghdr m[3] = { 0 };
            for (int i = 0; i < 3; i++) {
                m[i].msg_hdr.msg_iov = &v[i]; m[i].msg_hdr.msg_iovlen = 1;
                m[i].msg_hdr.msg_name = &to; m[i].msg_hdr.msg_namelen = n;
            }
            show("sent", sendmmsg(out, m, 3, 0));
            char b[9];
            for (int i = 0; i < 3; i++) show("received", recv(in, b, 9, 0));
            connect(out, (void *)&to, n);
            m[0].msg_hdr.msg_name = 0; m[0].msg_hdr.msg_namelen = 0;
            show("connected", sendmmsg(out, m, 1, MSG_DONTWAIT));
            show("none", sendmmsg(out, m, 0, 0));
            show("bad pointer", sendmmsg(out, (void *)8, 1, 0));
            show("bad descriptor", sendmmsg(99, m, 1, 0));
        }
        """,
    ),
    c(
        "names asked of a local server",
        r"""
        #include <netdb.h>
        #include <resolv.h>
        static int server;
        static void *answer(void *unused) {
            unsigned char b[512]; struct sockaddr_in from; socklen_t n = sizeof from; long got;
            while ((got = recvfrom(server, b, 300, 0, (void *)&from, &n)) > 12) {
                int end = 12, a = 0;
                while (b[end]) end += b[end] + 1;
                a = b[end + 2] == 1;
                end += 5; b[2] = 0x85; b[3] = 0x80; b[7] = a; memset(b + 8, 0, 4);
                if (b[13] == 'x') { b[3] = 0x83; b[7] = a = 0; }
                if (a) { memcpy(b + end, "\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x7f\x09\x08\x07", 16); end += 16; }
                sendto(server, b, end, 0, (void *)&from, n); n = sizeof from;
            }
            return unused;
        }
        int main(void) {
            struct sockaddr_in at = local(0); socklen_t n = sizeof at; pthread_t t; char text[64];
            server = socket(AF_INET, SOCK_DGRAM, 0); bind(server, (void *)&at, n); getsockname(server, (void *)&at, &n);
            pthread_create(&t, 0, answer, 0);
            res_init(); _res.nscount = 1; _res.nsaddr_list[0] = at; _res.options &= ~RES_DNSRCH;
            const char *names[] = { "host.test", "xist.test", "other.example" };
            for (int i = 0; i < 3; i++) {
                struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
                int e = getaddrinfo(names[i], "80", &hints, &found);
                puts(e ? gai_strerror(e) : inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, 64));
            }
        }
        """,
        "-pthread",
        "-lresolv",
    ),
    c(
        "connect without a library",
        r"""
        static long raw(long nr, long a, long b, long c) { return syscall(nr, a, b, c); }
        int main(void) {
            struct sockaddr_in to = local(1);
            for (int i = 0; i < 3; i++) {
                int s = socket(AF_INET, SOCK_STREAM, 0);
                show("connect", raw(SYS_connect, s, (long)&to, sizeof to));
                show("with a high half", raw(SYS_connect, s | (i ? 0L : 0x100000000L), (long)&to, sizeof to | 0x100000000L));
                close(s);
            }
            show("flags", sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT, (void *)&to, sizeof to));
        }
        """,
    ),
    c(
        "address on the border of a page",
        r"""
        int main(void) {
            char *m = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            struct sockaddr_in to = local(1);
            munmap(m + 4096, 4096);
            memcpy(m + 4096 - sizeof to, &to, sizeof to);
            show("inside", connect(socket(AF_INET, SOCK_STREAM, 0), (void *)(m + 4096 - sizeof to), sizeof to));
            show("across", connect(socket(AF_INET, SOCK_STREAM, 0), (void *)(m + 4096 - 8), sizeof to));
            show("longer", connect(socket(AF_INET, SOCK_STREAM, 0), (void *)(m + 4096 - sizeof to), 28));
            mprotect(m, 4096, PROT_NONE);
            show("unreadable", connect(socket(AF_INET, SOCK_STREAM, 0), (void *)(m + 4096 - sizeof to), sizeof to));
        }
        """,
    ),
)
