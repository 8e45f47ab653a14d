"""The Jupyter server extension. It talks to the agent only through the agent's sockets.

With `[guard] server = true` the server guards itself as this loads, and everything that it starts inherits that:
kernels of any provisioner, terminals, language servers, proxied programs. In any case it tells the agent which
notebooks and terminals it has.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

RUN_DIR = "NBSENTINEL_RUN_DIR"
"""Environment variable with the folder of the agent's sockets, where that is not the usual one."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "nbsentinel_jupyter"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    from nbsentinel_jupyter.server import guard_server, tell_sessions

    run_dir = os.environ.get(RUN_DIR)
    told = guard_server(run_dir)
    if told:
        server.log.warning("nbsentinel: %s", told)
    tell_sessions(server, run_dir)
