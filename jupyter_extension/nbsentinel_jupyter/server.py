"""What the extension does in a Jupyter server: guards it from inside, with all its threads, and tells its sessions."""

from __future__ import annotations

import errno

from nbsentinel_guard import abi, launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


def guard_server(run_dir: str | None = None) -> str:
    """Guard this process if the agent's settings want it; return what to tell the operator, "" when all is well.

    Never raises: a server works as ever, whatever is wrong here.

    Args:
        run_dir: Folder of the agent's sockets; None for the usual one.
    """
    flags = abi.FLAG_TSYNC | abi.FLAG_TSYNC_ESRCH
    try:
        return launcher.guard_this_process(run_dir or launcher.default_run_dir(), "server", flags=flags)
    except launcher.NotWantedError:
        return ""
    except OSError as error:
        if error.errno == errno.EBUSY:
            return ""  # a guard above us has it
        return f"the server runs unguarded: {error.strerror or error}"
    except Exception as error:  # noqa: BLE001 - whatever is broken here, the server runs
        return f"the server runs unguarded: {type(error).__name__}: {error}"


def tell_sessions(server: ServerApp, run_dir: str | None = None) -> None:
    """Tell the agent from now on which notebooks and terminals the server has. Never raises.

    Args:
        server: The server.
        run_dir: Folder of the agent's sockets; None for the usual one.
    """
    try:
        from nbsentinel_jupyter.sessions import Teller

        Teller(server, run_dir or launcher.default_run_dir()).start()
    except Exception as error:  # noqa: BLE001 - whatever is broken here, the server runs
        server.log.debug("nbsentinel: sessions are not told: %s: %s", type(error).__name__, error)
