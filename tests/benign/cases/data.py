"""Working on data: archives, pipelines, databases, workers, servers, and looking around a little."""

from __future__ import annotations

from benign.cases.base import Case
from live.programs import Language

CASES = (
    Case(
        name="loader-workers",
        resembles="processes that share memory and queues, as data loaders have them",
        language=Language.PYTHON,
        text="""
import multiprocessing as mp
from multiprocessing import shared_memory

def work(number, name, queue):
    block = shared_memory.SharedMemory(name)
    block.buf[number] = number
    queue.put(number)
    block.close()

if __name__ == "__main__":
    context = mp.get_context("spawn")
    block, queue = shared_memory.SharedMemory(create=True, size=16), context.Queue()
    workers = [context.Process(target=work, args=(n, block.name, queue)) for n in range(4)]
    [one.start() for one in workers]
    print("sum", sum(queue.get() for _ in workers), bytes(block.buf[:4]))
    [one.join() for one in workers]
    block.close(), block.unlink()
""",
        expects="sum 6",
    ),
    Case(
        name="arrays-in-mapped-files",
        resembles="many large files that are written and mapped",
        language=Language.PYTHON,
        text="""
import array, mmap, os, zlib
for part in range(20):
    with open(f"part-{part}.bin", "wb") as file:
        file.write(zlib.compress(os.urandom(200_000)))
with open("all.bin", "wb+") as file:
    file.truncate(8 << 20)
    view = memoryview(mmap.mmap(file.fileno(), 0)).cast("d")
    view[1000] = 42.0
    print("sum", sum(view[:2000]), array.array("d", view[999:1002]))
""",
        expects="sum 42.0",
    ),
    Case(
        name="files-renamed-and-rewritten",
        resembles="files that are locked one after the other: a clean-up of names",
        language=Language.BASH,
        text="""
for n in {1..40}; do echo "$n;a" > "In $n.csv"; done
for f in *.csv; do mv "$f" "${f// /_}"; done
sed -i 's/;/,/' *.csv; gzip *.csv; zcat *.gz | wc -l
""",
        expects="40",
    ),
    Case(
        name="one-file-encrypted",
        resembles="encryption of files: of one, to send it to a colleague",
        language=Language.BASH,
        programs=("openssl",),
        text="""
set -e
seq 100 > data.csv
openssl enc -aes-256-cbc -pbkdf2 -pass pass:word -in data.csv -out data.enc
openssl enc -d -aes-256-cbc -pbkdf2 -pass pass:word -in data.enc | cmp - data.csv && echo same
openssl dgst -sha256 *.csv *.enc | wc -l
""",
        expects="same\n2",
    ),
    Case(
        name="gpg-keys",
        resembles="use of keys: one's own keyring, a signature",
        language=Language.BASH,
        programs=("gpg",),
        text="""
set -e
mkdir -m 700 g && export GNUPGHOME=$PWD/g
gpg --list-keys 2> /dev/null
gpg -q --batch --passphrase '' --quick-generate-key me@example.com 2> /dev/null
echo text > file && gpg -q --batch -b file && gpg --verify file.sig file 2>&1 | grep -c Good
gpgconf --kill all
""",
        expects="1",
    ),
    Case(
        name="archive-of-project",
        resembles="packing before taking away: a project without credentials",
        language=Language.BASH,
        programs=("tar", "zip"),
        text="""
mkdir -p project/src && seq 500 > project/src/a && tar czf project.tgz project && zip -qr project.zip project
tar tzf project.tgz | wc -l; ls *.zip
""",
        expects="project.zip",
    ),
    Case(
        name="rsync-backup",
        resembles="copying everything: a project to another folder",
        language=Language.BASH,
        programs=("rsync",),
        text="mkdir -p p/d && seq 50 > p/d/a && rsync -a p/ b/ && rsync -a --delete p/ b/ && wc -l < b/d/a",
        expects="50",
    ),
    Case(
        name="grep-over-home",
        resembles="a search for secrets: for a word of the project",
        language=Language.BASH,
        programs=("grep",),
        text='grep -rln "def train" ~ ; echo "train()" > ~/train.py; grep -rl "train()" ~ | grep -c train.py',
        expects="1",
    ),
    Case(
        name="find-and-measure-home",
        resembles="looking over a home: names and sizes alone",
        language=Language.BASH,
        programs=("find", "du"),
        text="find ~ -name '*.ipynb' -mtime -1; du -sh ~ | cut -c 1-0; ls -laR ~ > all; echo looked",
        expects="looked",
    ),
    Case(
        name="base64-of-picture",
        resembles="decoding: into a file, which is compared",
        language=Language.BASH,
        text="head -c 5000 /dev/urandom > p.png; base64 p.png > p.txt; base64 -d p.txt | cmp - p.png && echo same",
        expects="same",
    ),
    Case(
        name="text-pipeline",
        resembles="programs joined by pipes",
        language=Language.BASH,
        text="seq 2000 | sed 's/7/x/g' | awk '{print length($0)}' | sort | uniq -c | sort -rn | head -n 1 | tr -s ' '",
        expects="1001",
    ),
    Case(
        name="curl-then-python",
        resembles="a download that is executed: it is data, and a program of the project reads it",
        language=Language.BASH,
        programs=("curl", "wget"),
        text="""
set -e
curl -fsS -o data.json $WEB/data.json && wget -q $WEB/lines.txt
$PYTHON -c 'import json; print("rows", json.load(open("data.json"))["rows"])'
curl -fsS $WEB/data.json | $PYTHON -c 'import json, sys; print("piped", json.load(sys.stdin)["rows"])'
curl -fsS $WEB/data.json | $PYTHON -m json.tool | head -n 2
""",
        expects="rows 100\npiped 100",
    ),
    Case(
        name="api-called-with-json",
        resembles="an upload: numbers to a service of one's own",
        language=Language.BASH,
        programs=("curl",),
        text="for n in 1 2 3; do curl -fsS -H 'Content-Type: application/json' -d '{\"loss\": 3}' $WEB/metrics; done",
        expects="got 11",
    ),
    Case(
        name="sqlite-tables",
        resembles="sqlite that reads files: its own",
        language=Language.BASH,
        programs=("sqlite3",),
        text="""
seq 10 | sed 's/$/,a/' > rows.csv
sqlite3 d.db 'create table t(n, a)' '.mode csv' '.import rows.csv t' 'select count(*) from t'
$PYTHON -c 'import sqlite3; print("total", *sqlite3.connect("d.db").execute("select sum(n) from t").fetchone())'
""",
        expects="total 55",
    ),
    Case(
        name="server-and-client",
        resembles="a program that listens: a web server that a client of the same project asks",
        language=Language.BASH,
        programs=("curl",),
        text="""
echo served > page; $PYTHON -u -m http.server --bind 127.0.0.1 0 > log 2>&1 &
until port=$(grep -o 'port [0-9]*' log); do sleep 0.1; done
curl -fsS http://127.0.0.1:${port#port }/page; kill $!
""",
        expects="served",
    ),
    Case(
        name="server-of-numbers",
        resembles="a program that answers what it is sent: with sums",
        language=Language.PYTHON,
        text="""
import asyncio, json

async def answer(reader, writer):
    writer.write(json.dumps(sum(json.loads(await reader.readline()))).encode() + b"\\n")
    await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    for n in range(5):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(json.dumps(list(range(n + 1))).encode() + b"\\n")
        print("sum", (await reader.readline()).decode())
        writer.close()

asyncio.run(main())
""",
        expects="sum 10",
    ),
    Case(
        name="background-training",
        resembles="a program that outlives its shell: with a log that is followed",
        language=Language.BASH,
        text="""
echo 'import time
for n in range(5): print("epoch", n, flush=True); time.sleep(0.2)' > train.py
nohup nice -n 5 $PYTHON train.py > train.log 2>&1 &
timeout 10 tail -n +1 -f --pid=$! train.log
""",
        expects="epoch 4",
    ),
    Case(
        name="who-am-i-once",
        resembles="looking around: two questions",
        language=Language.BASH,
        text="whoami > me; printenv HOME > /dev/null; env | sort > variables; wc -l < me",
        expects="1",
    ),
    Case(
        name="machine-looked-at",
        resembles="looking around: how busy the machine is",
        language=Language.BASH,
        text="df -h / | wc -l; free -m; nproc; ps aux | grep -c python; top -b -n 1 | head -n 1; echo looked",
        programs=("free", "top"),
        expects="looked",
    ),
    Case(
        name="memory-file-for-data",
        resembles="a program without a file: the memory file holds data",
        language=Language.PYTHON,
        text="""
import os
file = os.memfd_create("columns")
os.write(file, b"1,2,3\\n" * 1000)
print("size", os.stat(f"/proc/self/fd/{file}").st_size)
""",
        expects="size 6000",
    ),
    Case(
        name="crontab-shown",
        resembles="a change of the crontab: it is only shown",
        language=Language.BASH,
        programs=("crontab",),
        text="crontab -l 2>&1 | head -n 1; echo shown",
        expects="shown",
    ),
)
