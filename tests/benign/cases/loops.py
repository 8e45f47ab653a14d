"""Programs that load something, run commands and send something, in the order of their own work."""

from __future__ import annotations

from benign.cases.base import Case
from live.programs import Language

CASES = (
    Case(
        name="pipeline-on-one-connection",
        resembles="a loop that asks for orders: each reply is data, and the command is the same for all of them",
        language=Language.PYTHON,
        text="""
import http.client, os, subprocess
web = http.client.HTTPConnection(os.environ["WEB"].removeprefix("http://"))
for part in range(6):
    web.request("GET", "/data.json")
    open(f"{part}.json", "wb").write(web.getresponse().read())
    count = subprocess.run(f"wc -c < {part}.json; sleep 0.1", shell=True, capture_output=True).stdout
    web.request("PUT", f"/sizes/{part}", count)
    web.getresponse().read()
print("size", int(count))
""",
        expects="size 2524",
    ),
    Case(
        name="download-and-run-each",
        resembles="polling over HTTP: one connection for each command, but none that reports",
        language=Language.PYTHON,
        text="""
import os, subprocess, urllib.request
for step, command in enumerate(["tar tf data", "wc -c data", "cksum data", "ls -l data", "head -c 9 data"]):
    urllib.request.urlretrieve(os.environ["WEB"] + "/data.tar", "data")
    said = subprocess.getoutput(command)
print(step, said)
""",
        expects="4 part-0.cs",
    ),
    Case(
        name="metrics-every-moment",
        resembles="a loop that reports: it runs its command by the clock and asks for nothing",
        language=Language.PYTHON,
        text="""
import os, subprocess, time, urllib.request
for sample in range(6):
    load = subprocess.check_output("cat /proc/loadavg; uptime", shell=True)
    print(urllib.request.urlopen(os.environ["WEB"] + "/metrics", load).read().decode())
    time.sleep(0.6)
""",
        expects="got ",
    ),
    Case(
        name="build-beside-downloads",
        resembles="a loop over shells with captured output, in a program that talks all the time",
        language=Language.PYTHON,
        text="""
import os, subprocess, threading, urllib.request

def fetch():
    for _ in range(15):
        urllib.request.urlopen(os.environ["WEB"] + "/lines.txt").read()

others = [threading.Thread(target=fetch) for _ in range(2)]
for other in others:
    other.start()
for step in range(40):
    said = subprocess.run(["sh", "-c", f"echo built {step}; true"], capture_output=True, text=True).stdout
for other in others:
    other.join()
print(said)
""",
        expects="built 39",
    ),
    Case(
        name="script-with-curl",
        resembles="a shell that polls with curl: what it downloads is data, what it runs stands in the script",
        language=Language.BASH,
        programs=("curl",),
        text="""
set -e
for part in 1 2 3; do
    curl -fsS -o data.json "$WEB/data.json"
    size=$(sh -c 'wc -c < data.json; :')
    sum=$(sh -c 'cksum < data.json; :')
done
curl -fsS --data "$size" "$WEB/sizes"
""",
        expects="got 4",
    ),
    Case(
        name="pool-with-shared-memory",
        resembles="a worker that gets its orders through shared memory: they are arrays, and its shells are its own",
        language=Language.PYTHON,
        text="""
import http.client, multiprocessing, os, subprocess
from multiprocessing import shared_memory

def work(name, part):
    block = shared_memory.SharedMemory(name)
    block.buf[part] = int(subprocess.run(["sh", "-c", f"echo $(({part} * {part}))"], capture_output=True).stdout)
    block.close()

if __name__ == "__main__":
    web = http.client.HTTPConnection(os.environ["WEB"].removeprefix("http://"))
    block = shared_memory.SharedMemory(create=True, size=4096)
    for part in range(8):
        web.request("GET", "/data.json")
        web.getresponse().read()
        worker = multiprocessing.Process(target=work, args=(block.name, part))
        worker.start()
        worker.join()
    print("squares", sum(block.buf[:8]))
    block.close()
    block.unlink()
    web.close()
""",
        expects="squares 140",
    ),
    Case(
        name="cells-with-downloads-and-commands",
        resembles="a kernel that is told what to run: its cells say it, in between they load and store data",
        language=Language.CELLS,
        text="""
import http.client, os, urllib.request
web = os.environ["WEB"]
kept = http.client.HTTPConnection(web.removeprefix("http://"))
# %%
_ = urllib.request.urlretrieve(web + "/data.tar", "data.tar")
!tar xf data.tar
# %%
names = !ls *.csv
kept.request("PUT", "/names", "\\n".join(names)); _ = kept.getresponse().read()
# %%
kept.request("GET", "/data.json"); open("data.json", "wb").write(kept.getresponse().read())
!wc -c data.json
kept.request("PUT", "/sizes", "x"); print(kept.getresponse().read())
# %%
print("files", len(names))
""",
        expects="files 5",
    ),
)
