"""The entry point: `nbsentinel` and `python -m nbsentinel`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code.

    `nbsentinel guard` goes straight to the launcher: it runs before every kernel and terminal and loads nothing else.
    `nbsentinel agent` forks its keeper off first, while the process is still small.
    """
    if sys.argv[1:2] == ["guard"]:
        from nbsentinel_guard import launcher

        raise SystemExit(launcher.main(sys.argv[2:]))
    bond = None
    if sys.argv[1:2] == ["agent"]:
        from nbsentinel.protect import keeper

        bond = keeper.keep()
    from nbsentinel.cli import run

    raise SystemExit(run(bond=bond))


if __name__ == "__main__":
    main()
