"""Start an IPython kernel as jupyter_client does, run the cells of a file in it, print what they say.

Run as `python run_cells.py FILE`; cells are parted by lines `# %%`. The exit code is 1 if a cell failed. With `--stay`
after FILE the kernel is kept until this process is ended.
"""

import signal
import sys
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

START_S = 45


def show(message: dict[str, Any]) -> None:
    """Print the text of one message of the kernel."""
    content = message["content"]
    if message["msg_type"] == "stream":
        print(content["text"], end="", flush=True)
    elif message["msg_type"] == "error":
        print("\n".join(content["traceback"]), flush=True)


def main() -> int:
    """Run the cells of the file."""
    manager, client = start_new_kernel(startup_timeout=START_S, kernel_name="python3")
    try:
        for cell in Path(sys.argv[1]).read_text().split("# %%\n"):
            reply = client.execute_interactive(cell, timeout=None, output_hook=show)
            if reply["content"]["status"] != "ok":
                return 1
        if "--stay" in sys.argv:
            signal.pause()
        return 0
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    sys.exit(main())
