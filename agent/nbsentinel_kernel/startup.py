"""Lets a running kernel guard itself and report, from an IPython startup file: covers kernels that no launcher started.

Run by path in environments that have none of our packages. It leaves no name in the user's namespace, prints nothing
and never raises: a kernel starts as ever, whatever is wrong here. What did not work shows in the agent's coverage, as a
kernel outside the guard.
"""

from __future__ import annotations

import importlib.util
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_AGENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILE = """\
# nbsentinel: guards kernels that nobody started through `nbsentinel guard`, and lets them tell which cell does what.
# Made by `nbsentinel guard --startup-file`.
def _nbsentinel():
    try:
        import importlib.util

        spec = importlib.util.spec_from_file_location("nbsentinel_kernel_startup", {path!r})
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.start({run_dir!r})
    except Exception:
        pass


_nbsentinel()
del _nbsentinel
"""


def startup_file(run_dir: str) -> str:
    """Return the text of a file for `/etc/ipython/startup` (or `etc/ipython/startup` of an environment)."""
    return FILE.format(path=os.path.abspath(__file__), run_dir=run_dir)


def _load(name: str) -> None:
    """Make one of our packages importable where the environment lacks it."""
    if name not in sys.modules:
        folder = os.path.join(_AGENT, name)
        spec = importlib.util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[name] = package
        spec.loader.exec_module(package)


def is_kernel() -> bool:
    """Return whether this is a kernel, and not IPython in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def start(run_dir: str) -> str:
    """Guard this kernel with all its threads and let it report; each works without the other.

    Returns:
        What is wrong, "" for nothing.
    """
    if not is_kernel():
        return "not a kernel"
    return "; ".join(told for told in (_try(report, run_dir), _try(guard, run_dir)) if told)


def launched(run_dir: str) -> str:
    """Let this kernel report, where the launcher has guarded it; return what is wrong, "" for nothing."""
    return _try(report, run_dir) if is_kernel() else "not a kernel"


def run_users_file(path: str, names: dict[str, object]) -> None:
    """Run the user's own PYTHONSTARTUP as whoever found ours would have run it.

    Args:
        path: The file.
        names: The user's namespace.
    """
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    app = getattr(getattr(shell, "kernel", shell), "parent", None)
    try:
        if app is not None:
            app._exec_file(path)
        else:
            with open(path, "rb") as file:
                exec(compile(file.read(), path, "exec"), names)  # noqa: S102 - it is the user's own start-up file
    except Exception:  # noqa: BLE001 - shown, as whoever runs such files does
        if app is None:
            sys.excepthook(*sys.exc_info())
        else:
            app.log.warning("Unknown error in handling PYTHONSTARTUP file %s:", path)
            shell.showtraceback()


def _try(step: Callable[[str], str], run_dir: str) -> str:
    try:
        return step(run_dir)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one is not the matter of the other
        return "%s: %s" % (type(error).__name__, error)


def report(run_dir: str) -> str:
    """Let this kernel report its cells; return what is wrong, "" when it does."""
    _load("nbsentinel_kernel")
    from nbsentinel_kernel import reports

    return reports.start(run_dir)


def guard(run_dir: str) -> str:
    """Guard this kernel with all its threads; return what is wrong, "" when it is guarded, by us or from outside."""
    _load("nbsentinel_guard")
    from nbsentinel_guard import abi, launcher

    try:
        return launcher.guard_this_process(run_dir, "kernel", flags=abi.FLAG_TSYNC | abi.FLAG_TSYNC_ESRCH)
    except launcher.NotWantedError:
        return "not wanted"
    except OSError as error:
        import errno

        return "" if error.errno == errno.EBUSY else str(error)
