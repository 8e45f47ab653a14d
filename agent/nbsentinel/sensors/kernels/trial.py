"""The self-test's child: loads what kernels load, in a process that looks like one to it, and opens a watched file.

Standard library only, run by path: `trial.py STARTUP RUN_DIR MARK`. The files, hooks and socket are the real ones; only
IPython is played, because the agent's environment has none.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Callable


class _Events:
    """IPython's event manager, as far as it is used."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Callable[[object], None]]] = {}

    def register(self, event: str, callback: Callable[[object], None]) -> None:
        """Keep a callback."""
        self.callbacks.setdefault(event, []).append(callback)

    def trigger(self, event: str, argument: object) -> None:
        """Call what is registered."""
        for callback in self.callbacks.get(event, ()):
            callback(argument)


def main(startup: str, run_dir: str, mark: str) -> str:
    """Run one cell as a kernel would; return what is wrong, "" for nothing."""
    header = {"header": {"msg_id": mark}, "metadata": {"cellId": mark}}
    kernel = types.SimpleNamespace(get_parent=lambda _channel: header)
    shell = types.SimpleNamespace(kernel=kernel, events=_Events(), execution_count=1)
    played = types.ModuleType("IPython")
    played.get_ipython = lambda: shell  # type: ignore[attr-defined]
    sys.modules["IPython"] = played
    spec = importlib.util.spec_from_file_location("nbsentinel_kernel_startup", startup)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    told: str = module.report(run_dir)
    shell.events.trigger("pre_run_cell", types.SimpleNamespace(raw_cell=mark, store_history=True))
    with contextlib.suppress(OSError):
        open(f"/proc/{mark}/environ").close()
    shell.events.trigger("post_run_cell", types.SimpleNamespace(success=True))
    sys.stdin.read()  # until the sensor has seen who we are
    return told


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]) or 0)
