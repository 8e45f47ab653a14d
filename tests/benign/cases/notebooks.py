"""Jupyter as its users know it: terminals and kernels with shells in them, behind a server with remote browsers."""

from __future__ import annotations

from benign.cases.base import Case
from live.programs import Language

CASES = (
    Case(
        name="jupyter-terminal",
        resembles="a shell on a pty whose master a process with remote connections holds",
        language=Language.SERVER_TERMINAL,
        text="""
            ls -la | head -n 3
            bash --norc
            for n in 1 2 3; do echo "loop $n"; sleep 0.5; done
            sh -c 'echo sum $((40 + 2))'
            exit
            sleep 1.5
            exit
        """,
        expects="sum 42",
    ),
    Case(
        name="jupyter-terminal-prompts",
        resembles="interpreters on a pty whose master a process with remote connections holds",
        language=Language.SERVER_TERMINAL,
        programs=("curl",),
        text="""
            $PYTHON -q
            print("sum", 40 + 2)
            import time; time.sleep(1)
            exit()
            curl -s $WEB/slow/lines.txt | tail -n 1
            cat <<< 'echo fed' | bash
            exit
        """,
        expects="sum 42",
    ),
    Case(
        name="jupyter-kernel-shells",
        resembles="a kernel that relays to a shell: its connection is a client's that stays open",
        language=Language.SERVER_CELLS,
        text="""
import http.client, os, subprocess
web = http.client.HTTPConnection(os.environ["WEB"].removeprefix("http://"))
web.request("GET", "/data.json")
print(len(web.getresponse().read()))
# %%
!ls; sleep 1; echo bang $((40 + 2))
# %%
%%bash
for n in 1 2 3 4; do sleep 0.5; echo magic $n; done
# %%
sort = subprocess.Popen(["sort"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(sort.communicate("b\\na\\n"))
!seq 100 | sort -n | tail -n 1
# %%
%%script python3
import time
time.sleep(1)
print("script magic")
# %%
web.request("GET", "/data.json")
print(len(web.getresponse().read()), "again")
web.close()
""",
        expects="magic 4",
    ),
    Case(
        name="kernel-polls-while-cell-runs-bash",
        resembles="a kernel that relays to a shell: bytes flow on its connection while the shell runs",
        language=Language.CELLS,
        text="""
import os, threading, time, requests
done = threading.Event()
def poll():
    with requests.Session() as web:
        while not done.wait(0.1):
            web.get(os.environ["WEB"] + "/data.json").json()
thread = threading.Thread(target=poll)
thread.start()
# %%
%%bash
for n in 1 2 3 4 5 6; do sleep 0.5; echo step $n; done
# %%
!sleep 1.5; echo bang $((40 + 2))
# %%
done.set()
thread.join()
""",
        expects="step 6",
    ),
    Case(
        name="kernel-serves-web-and-runs-shells",
        resembles="a bind shell in a kernel: the requests are answered by Python, shells run beside it",
        language=Language.CELLS,
        text="""
import subprocess, threading, urllib.request
from http.server import HTTPServer, SimpleHTTPRequestHandler
server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
# %%
for n in range(4):
    urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/").read()
    print(subprocess.run("sleep 0.5; echo ran; ls | wc -l", shell=True, capture_output=True, text=True).stdout)
# %%
server.shutdown()
""",
        expects="ran",
    ),
    Case(
        name="kernel-pool-and-pty",
        resembles="a kernel with children on pipes and a shell on a pty",
        language=Language.CELLS,
        text="""
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool:
    print(sum(pool.map(abs, range(-5, 0))))
# %%
import pexpect
shell = pexpect.spawn("bash", ["--norc"], encoding="utf-8", timeout=10)
shell.sendline("sleep 1.5; echo sum $((40 + 2))")
shell.expect("sum 42")
shell.sendline("exit")
shell.expect(pexpect.EOF)
print("sum 42")
""",
        expects="sum 42",
    ),
    Case(
        name="nbconvert-executes",
        resembles="a kernel without a server",
        language=Language.BASH,
        text="""
            cat > book.ipynb <<'END'
            {"cells": [{"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [],
              "source": "!sleep 1; echo sum $((40 + 2))"}], "metadata": {"kernelspec": {"name": "python3",
              "display_name": "Python 3", "language": "python"}}, "nbformat": 4, "nbformat_minor": 5}
            END
            $PYTHON -m nbconvert --to notebook --execute --stdout book.ipynb
        """,
        expects="sum 42",
    ),
)
