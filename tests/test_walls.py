"""The walls of the house: which part may import which, and what stays out of the agent's memory."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
AGENT = ROOT / "agent" / "nbsentinel"
GUARD = ROOT / "agent" / "nbsentinel_guard"
KERNEL = ROOT / "agent" / "nbsentinel_kernel"
JUPYTER = ROOT / "jupyter_extension" / "nbsentinel_jupyter"
COLLECTOR = ROOT / "collector" / "nbsentinel_collector"

# For each part: the parts of nbsentinel that it may import, beside itself. "" is nbsentinel.__version__.
ALLOWED = {
    "events": set(),
    "text": set(),
    "errors": set(),
    "attest": {"errors"},
    "context": {"events"},
    "sensors": {"context", "events", "text"},
    "detect": {"context", "events", "errors"},
    "config": {"detect", "errors"},
    "report": {"attest", "context", "events", "errors", "config", "text", ""},
    "local": {"report", "errors"},
    "protect": {"config", "events", "harden", "report"},
}
COLLECTOR_MAY = {"attest", "errors", "report.ocsf", "report.ocsf_objects", ""}
AGENT_NEVER_LOADS = (
    "sigma",
    "yaml",
    "fastapi",
    "sqlalchemy",
    "pydantic",
    "boto3",
    "rich",
    "watchdog",
    "jupyter_server",
)


def imports(path: Path) -> set[str]:
    """Return the dotted names of everything a file imports, type-checking blocks included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def parts_used(path: Path) -> set[str]:
    names = {name.removeprefix("nbsentinel.") for name in imports(path) if name.startswith("nbsentinel.")}
    return {"" if name == "__version__" else name for name in names}


def files_of(part: str) -> list[Path]:
    single = AGENT / f"{part}.py"
    return [single] if single.exists() else sorted((AGENT / part).rglob("*.py"))


@pytest.mark.parametrize("part", ALLOWED)
def test_dependencies_run_one_way(part: str) -> None:
    """Each part imports only what the architecture lets it."""
    files = files_of(part)
    assert files
    for path in files:
        used = {name.partition(".")[0] for name in parts_used(path)} - {part}
        assert used <= ALLOWED[part], f"{path.relative_to(ROOT)} imports {sorted(used - ALLOWED[part])}"


def test_collector_knows_little_of_the_agent() -> None:
    """The collector imports attestation, errors and the OCSF mapping, nothing else of the agent."""
    for path in COLLECTOR.rglob("*.py"):
        for name in parts_used(path):
            allowed = any(name == part or name.startswith(part + ".") for part in COLLECTOR_MAY if part) or name == ""
            assert allowed, f"{path.relative_to(ROOT)} imports nbsentinel.{name}"


def test_guard_is_standard_library_alone() -> None:
    """The guard starts before every kernel, in environments that have none of our packages."""
    allowed = {"nbsentinel_guard", "nbsentinel_kernel", *sys.stdlib_module_names}
    for path in [*GUARD.rglob("*.py"), *KERNEL.rglob("*.py")]:
        used = {name.partition(".")[0] for name in imports(path)}
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {sorted(used - allowed)}"


def test_guard_is_written_for_old_interpreters() -> None:
    """User environments have old interpreters: the guard's files parse as Python 3.7."""
    for path in [*GUARD.rglob("*.py"), *KERNEL.rglob("*.py")]:
        ast.parse(path.read_text(), feature_version=(3, 7))


def test_extension_knows_only_the_guard() -> None:
    """The Jupyter server's environment gets our wheel without its dependencies."""
    allowed = {"nbsentinel_guard", "nbsentinel_jupyter", "jupyter_server", *sys.stdlib_module_names}
    for path in JUPYTER.rglob("*.py"):
        used = {name.partition(".")[0] for name in imports(path)}
        assert used <= allowed, f"{path.relative_to(ROOT)} imports {sorted(used - allowed)}"


def test_launcher_loads_little() -> None:
    """`nbsentinel guard` is in front of every kernel: neither click nor the agent is loaded for it."""
    code = (
        "import sys; sys.argv = ['nbsentinel', 'guard', '--help']; from nbsentinel.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('click', 'msgspec', 'typing', 'asyncio', 'nbsentinel.cli') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=AGENT.parent
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_agent_never_loads_what_it_does_not_need() -> None:
    """Building an agent loads no rule compiler, no web framework, no terminal drawing, no AWS."""
    code = f"import sys, nbsentinel.agent; print([m for m in {AGENT_NEVER_LOADS!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_module_has_outgrown_its_place() -> None:
    """No module is longer than 400 lines."""
    long = {
        str(p.relative_to(ROOT)): n
        for p in [*(ROOT / "agent").rglob("*.py"), *COLLECTOR.rglob("*.py"), *JUPYTER.rglob("*.py")]
        if (n := len(p.read_text().splitlines())) > 400
    }
    assert long == {}
