"""Start a Jupyter server and use it as a browser does: over its REST interface and its websockets.

Run as `python use_server.py terminal FILE` (each line is typed into a terminal; the shell's answers are printed) or
`python use_server.py cells FILE` (cells, parted by lines `# %%`, run in a kernel that the server started). The lines of
a terminal end with `exit` or the server is used until this process is ended.
"""

import json
import secrets
import socket
import subprocess
import sys
import time
import uuid
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import requests
import websocket

START_S = 45


class Server:
    """A Jupyter server on a free port, with a token."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as trial:
            port = trial.getsockname()[1]
        token = secrets.token_hex(16)
        self.address = f"127.0.0.1:{port}"
        self.browser = requests.Session()
        self.browser.headers["Authorization"] = f"token {token}"
        self._token = token
        options = ["--no-browser", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
        command = [sys.executable, "-m", "jupyter_server", *options, f"--IdentityProvider.token={token}"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def wait_ready(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with suppress(requests.ConnectionError):
                self.browser.get(f"http://{self.address}/api/status", timeout=5).raise_for_status()
                return
            time.sleep(0.1)
        raise SystemExit("the Jupyter server does not answer")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create something over the REST interface."""
        answer = self.browser.post(f"http://{self.address}/api/{path}", json=body, timeout=START_S)
        answer.raise_for_status()
        created: dict[str, Any] = answer.json()
        return created

    def open(self, path: str) -> websocket.WebSocket:
        """Open a websocket."""
        return websocket.create_connection(f"ws://{self.address}/{path}?token={self._token}", timeout=START_S)

    def stop(self) -> None:
        """End the server with its kernels and terminals."""
        self._process.terminate()
        self._process.wait(20)


def use_terminal(server: Server, text: str) -> int:
    """Type the lines into a new terminal and print what comes until the shell ends."""
    name = server.post("terminals", {})["name"]
    with closing(server.open(f"terminals/websocket/{name}")) as tab:
        tab.settimeout(None)
        while "$" not in str(json.loads(tab.recv())[1:]):
            continue
        for line in text.splitlines():
            tab.send(json.dumps(["stdin", line + "\r"]))
            time.sleep(0.2)
        while True:
            kind, *content = json.loads(tab.recv())
            if kind == "disconnect":
                return 0
            if kind == "stdout":
                print(content[0], end="", flush=True)


def use_kernel(server: Server, text: str) -> int:
    """Run the cells in a new kernel and print what they say."""
    kernel = server.post("kernels", {"name": "python3"})["id"]
    failed = 0
    with closing(server.open(f"api/kernels/{kernel}/channels")) as channels:
        channels.settimeout(None)
        for cell in text.split("# %%\n"):
            number = uuid.uuid4().hex
            header = {
                "msg_id": number,
                "msg_type": "execute_request",
                "session": number,
                "username": "",
                "version": "5.3",
            }
            content = {"code": cell, "silent": False, "store_history": True, "allow_stdin": False}
            message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
            channels.send(json.dumps(message))
            while True:
                answer = json.loads(channels.recv())
                if answer["parent_header"].get("msg_id") != number:
                    continue
                if answer["msg_type"] == "stream":
                    print(answer["content"]["text"], end="", flush=True)
                elif answer["msg_type"] == "error":
                    print("\n".join(answer["content"]["traceback"]), flush=True)
                    failed = 1
                elif answer["channel"] == "iopub" and answer["content"].get("execution_state") == "idle":
                    break
    return failed


def main() -> int:
    """Do what the arguments say."""
    server = Server()
    try:
        server.wait_ready()
        use = {"terminal": use_terminal, "cells": use_kernel}[sys.argv[1]]
        return use(server, Path(sys.argv[2]).read_text())
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
