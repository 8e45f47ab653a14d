"""Working on a project: installing, versioning, building, testing."""

from __future__ import annotations

from benign.cases.base import Case
from live.programs import Language

_WHEEL = """
$PYTHON - <<'END'
import zipfile
with zipfile.ZipFile("tool-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tool/__init__.py", "answer = 42\\n")
    wheel.writestr("tool-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tool\\nVersion: 1.0\\n")
    wheel.writestr("tool-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("tool-1.0.dist-info/entry_points.txt", "[console_scripts]\\ntool = tool:main\\n")
    wheel.writestr("tool-1.0.dist-info/RECORD", "")
END
"""
_ME = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b"

CASES = (
    Case(
        name="pip-installs-wheel",
        resembles="a program that was brought in: into a folder of the project, from a local file",
        language=Language.BASH,
        text=f"""
set -e
{_WHEEL}
$PYTHON -m pip install -q --no-index --target lib ./tool-1.0-py3-none-any.whl
PYTHONPATH=lib $PYTHON -c 'import tool; print("answer", tool.answer)'
""",
        expects="answer 42",
    ),
    Case(
        name="pip-installs-into-environment",
        resembles="files that appear in bin and site-packages",
        language=Language.BASH,
        text=f"""
set -e
{_WHEEL}
$PYTHON -m venv --without-pip env
$PYTHON -m pip --python env/bin/python install -q --no-index ./tool-1.0-py3-none-any.whl
env/bin/python -c 'import tool; print("answer", tool.answer)'
ls env/bin/tool
""",
        expects="answer 42\nenv/bin/tool",
    ),
    Case(
        name="pip-installs-for-user",
        resembles="a change of the user's site-packages: by pip, of a package",
        language=Language.BASH,
        text=f"""
set -e
{_WHEEL}
cp -r $($PYTHON -c 'import pip, os; print(os.path.dirname(pip.__file__))') pip
PYTHONPATH=$PWD /usr/bin/python3 -m pip install -q --no-index --user --break-system-packages ./tool-1.0-py3-none-any.whl
/usr/bin/python3 -c 'import tool; print("answer", tool.answer)'
""",
        expects="answer 42",
    ),
    Case(
        name="pip-lists",
        resembles="reading the index's settings",
        language=Language.BASH,
        text="$PYTHON -m pip list --disable-pip-version-check | wc -l; $PYTHON -m pip config list; echo listed",
        expects="listed",
    ),
    Case(
        name="conda-like-install",
        resembles="a downloaded archive whose script is run: a package with a step after linking",
        language=Language.BASH,
        programs=("tar", "sed", "curl"),
        text="""
set -e
mkdir -p pkg/bin pkg/etc/conda/activate.d
printf '#!/old/prefix/bin/sh\\necho tool runs\\n' > pkg/bin/tool
echo 'export TOOL=1' > pkg/etc/conda/activate.d/tool.sh
printf 'echo linked > "$PREFIX/linked"\\n' > pkg/bin/.tool-post-link.sh
tar cjf tool.tar.bz2 -C pkg . 2>/dev/null || tar czf tool.tar.bz2 -C pkg .
mkdir prefix && tar xf tool.tar.bz2 -C prefix
sed -i "s|/old/prefix/bin/sh|/bin/sh|" prefix/bin/tool && chmod +x prefix/bin/tool
PREFIX=$PWD/prefix bash prefix/bin/.tool-post-link.sh
. prefix/etc/conda/activate.d/tool.sh && prefix/bin/tool && cat prefix/linked
""",
        expects="tool runs\nlinked",
    ),
    Case(
        name="git-branches",
        resembles="programs below git: merges, a rebase and its editor",
        language=Language.BASH,
        programs=("git",),
        text=f"""
set -e
{_ME}
git init -q work && cd work
for n in 1 2 3; do echo $n > f$n; git add f$n; git commit -qm "step $n"; done
git checkout -q -b side HEAD~1 && echo s > s && git add s && git commit -qm side
GIT_EDITOR=true git rebase -q HEAD~1 && git checkout -q - && git merge -q --no-edit side
git stash list; git archive HEAD | tar t | wc -l; git log --oneline | wc -l
""",
        expects="5",
    ),
    Case(
        name="git-clone-with-template",
        resembles="hooks in a repository of the home: the examples that git puts there",
        language=Language.BASH,
        programs=("git",),
        text=f"""
set -e
{_ME}
git init -q one && git -C one commit -q --allow-empty -m first
git clone -q "file://$PWD/one" ~/two-from-clone
git -C ~/two-from-clone config user.name me && git -C ~/two-from-clone log --format=%s
""",
        expects="first",
    ),
    Case(
        name="git-settings",
        resembles="a change of a start-up file: git's own",
        language=Language.BASH,
        programs=("git",),
        text="git config --global init.defaultBranch main && git config --global --get init.defaultBranch",
        expects="main",
    ),
    Case(
        name="make-library-and-test",
        resembles="new programs that run at once",
        language=Language.BASH,
        programs=("make", "gcc", "ar"),
        text="""
set -e
echo 'int twice(int n) { return 2 * n; }' > twice.c
printf '#include <stdio.h>\\nint twice(int);\\nint main(void) { printf("twice %%d\\\\n", twice(21)); }\\n' > main.c
printf 'check: main\\n\\t./main\\nmain: main.o libtwice.a\\n\\tgcc -o $@ $^\\n' > Makefile
printf 'libtwice.a: twice.o\\n\\tar rcs $@ $^\\n' >> Makefile
make -s -j2
""",
        expects="twice 42",
    ),
    Case(
        name="cmake-builds",
        resembles="new programs in many folders",
        language=Language.BASH,
        programs=("cmake", "gcc", "make"),
        text="""
set -e
printf 'cmake_minimum_required(VERSION 3.10)\\nproject(p C)\\nadd_executable(app app.c)\\n' > CMakeLists.txt
printf '#include <stdio.h>\\nint main(void) { puts("app runs"); }\\n' > app.c
cmake -S . -B build > log && cmake --build build >> log && build/app
""",
        expects="app runs",
    ),
    Case(
        name="extension-built-and-loaded",
        resembles="a shared library from a folder of the user",
        language=Language.PYTHON,
        text="""
import ctypes, pathlib, subprocess
pathlib.Path("fast.c").write_text("long total(long n) { long s = 0; while (n) s += n--; return s; }")
subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", "fast.so", "fast.c"], check=True)
print("total", ctypes.CDLL("./fast.so").total(100))
""",
        programs=("gcc",),
        expects="total 5050",
    ),
    Case(
        name="pytest-in-cell",
        resembles="many programs from one cell",
        language=Language.CELLS,
        text="""
import pathlib
pathlib.Path("test_it.py").write_text(
    "import subprocess\\ndef test_a(tmp_path):\\n    assert subprocess.run(['true']).returncode == 0\\n"
)
# %%
!$PYTHON -m pytest -q -p no:cacheprovider test_it.py
# %%
%timeit -n 5 -r 1 sum(range(1000))
""",
        expects="1 passed",
    ),
    Case(
        name="notebook-with-parameters",
        resembles="code that is put into a notebook and run",
        language=Language.PYTHON,
        text="""
import nbclient, nbformat
cell = nbformat.v4.new_code_cell
book = nbformat.v4.new_notebook(cells=[cell("n = 1"), cell("print('n is', n)")])
book.cells.insert(1, cell("n = 42", metadata={"tags": ["injected-parameters"]}))
nbclient.NotebookClient(book, timeout=60).execute()
print(book.cells[-1].outputs[0].text)
""",
        expects="n is 42",
    ),
    Case(
        name="own-child-traced",
        resembles="looking into another process: into one that it started itself",
        language=Language.BASH,
        programs=("strace",),
        text="strace -f -c -o counts sh -c 'ls / > /dev/null' && grep -c execve counts",
        expects="1",
    ),
    Case(
        name="system-library-preloaded",
        resembles="a hijack by LD_PRELOAD: with a library of the system",
        language=Language.BASH,
        text='LD_PRELOAD=libm.so.6 $PYTHON -c \'print("preloaded", "libm" in open("/proc/self/maps").read())\'',
        expects="preloaded True",
    ),
)
