"""Programs that use Jupyter as its clients do; run as the account, in a cage, never imported."""

from pathlib import Path

_HERE = Path(__file__).parent
RUN_CELLS = _HERE / "run_cells.py"
"""FILE: run its cells in a kernel of its own; the answers go to standard output."""
USE_SERVER = _HERE / "use_server.py"
"""`terminal` or `cells`, and FILE: start a Jupyter server and do it there."""
