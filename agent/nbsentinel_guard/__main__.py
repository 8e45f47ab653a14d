"""Run by path with `python -I -S`, so that no file of the user's environment is loaded before ours."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main() -> int:
    """Dispatch: `hold RUN_DIR` runs the holder, anything else is the launcher's command line."""
    if sys.argv[1:2] == ["hold"]:
        from nbsentinel_guard import holder

        return holder.main(sys.argv[2:])
    from nbsentinel_guard import launcher

    return launcher.main(sys.argv[1:])


sys.exit(main())
