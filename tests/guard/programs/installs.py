"""Installing software: pip into fresh environments, conda-like relocation, R packages, configure and make."""

from guard.programs.case import py, sh

_WHEEL = """
cat > wheel.py <<'X'
import zipfile
files = {
    "demo/__init__.py": "def main():\\n    print('demo runs')\\n    return 3\\n",
    "demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n",
    "demo-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "demo-1.0.dist-info/entry_points.txt": "[console_scripts]\\ndemo = demo:main\\n",
}
files["demo-1.0.dist-info/RECORD"] = "".join(f"{name},,\\n" for name in (*files, "demo-1.0.dist-info/RECORD"))
with zipfile.ZipFile("demo-1.0-py3-none-any.whl", "w") as z:
    for name, text in files.items():
        z.writestr(name, text)
X
python3 wheel.py
"""
_QUIET = (r"\[notice\][^\n]*\n", "")
CASES = (
    sh(
        "pip into a fresh environment",
        _WHEEL
        + "python3 -m venv v; v/bin/pip install -q --no-index --disable-pip-version-check ./demo-1.0-py3-none-any.whl; echo $?; v/bin/demo; echo $?; v/bin/pip uninstall -qy demo; v/bin/demo; echo $?",
        "python3",
        varies=(_QUIET,),
    ),
    sh(
        "virtual environment without pip",
        'python3 -m venv --without-pip --symlinks v; v/bin/python -c \'import sys; print(sys.prefix != sys.base_prefix)\'; . v/bin/activate; python -c \'import subprocess, sys; print(subprocess.run(["python", "-c", "import sys; sys.exit(4)"]).returncode)\'',
        "python3",
    ),
    sh(
        "conda-like install",
        """
        mkdir -p build/bin build/lib build/etc pkgs env
        P=/opt/placeholder/$(printf %0180d 0)
        printf "#!$P/bin/tool\\necho via \\$0\\n" > build/bin/script
        cp /bin/sh build/bin/tool
        printf 'prefix=%s\\n' $P > build/etc/conf
        printf 'binary\\0%s\\0end' $P > build/lib/data
        seq 500 > build/lib/shared; ln -s shared build/lib/alias; chmod +x build/bin/*
        tar -C build -cjf pkg.tar.bz2 .
        tar -C pkgs -xjf pkg.tar.bz2
        cat > link.py <<'X'
        import os, sys
        prefix, old = os.environb[b'NEW'], os.environb[b'OLD']
        for folder, _, names in os.walk('pkgs'):
            target = folder.replace('pkgs', 'env', 1); os.makedirs(target, exist_ok=True)
            for name in sorted(names):
                source, to = os.path.join(folder, name), os.path.join(target, name)
                if os.path.islink(source): os.symlink(os.readlink(source), to); continue
                data = open(source, 'rb').read()
                if old not in data: os.link(source, to); continue
                data = data.replace(old, prefix) if b'\\0' not in data else data.replace(old, prefix).ljust(len(data), b'\\0')
                with open(to, 'wb') as f: f.write(data)
                os.chmod(to, os.stat(source).st_mode)
        X
        OLD=$P NEW=$PWD/env python3 link.py
        head -1 env/bin/script | grep -c "^#!$PWD/env/bin/tool"; env/bin/script | grep -c via; env/bin/tool -c 'exit 5'; echo $?
        stat -c %h env/lib/shared env/etc/conf env/bin/tool; cmp env/lib/alias pkgs/lib/shared; stat -c %s env/lib/data; grep -c prefix=$PWD env/etc/conf
        rm -r pkgs; stat -c %h env/lib/shared
        """,
        "python3",
        "bzip2",
    ),
    sh(
        "configure and make",
        """
        cat > configure <<'X'
        #!/bin/sh
        for f in stdio.h no_such_header.h sys/socket.h; do
          printf '#include <%s>\\nint main(void) { return 0; }\\n' $f > conftest.c
          if ${CC-cc} -o conftest conftest.c >/dev/null 2>&1 && ./conftest; then echo "checking for $f... yes"; else echo "checking for $f... no"; fi
        done
        sed "s|@prefix@|$1|" Makefile.in > Makefile
        X
        sed -i 's/^ *//' configure; chmod +x configure
        printf 'all: p\\np: p.c\\n\\t@cc -o p p.c\\ninstall: p\\n\\t@install -D p @prefix@/bin/p\\n' > Makefile.in
        echo 'int main(void) { return 6; }' > p.c
        ./configure $PWD/to && make -s && make -s install && to/bin/p; echo $?
        """,
        "cc",
        "make",
    ),
    sh(
        "R package",
        "mkdir -p p/R lib; printf 'Package: demo\\nVersion: 1.0\\nTitle: T\\nDescription: D.\\nLicense: GPL\\nAuthor: A\\nMaintainer: A <a@b.c>\\n' > p/DESCRIPTION; echo 'f <- function() 42' > p/R/f.R; echo 'export(f)' > p/NAMESPACE; R CMD INSTALL --no-docs -l lib p >/dev/null 2>&1; echo $?; Rscript --vanilla -e '.libPaths(\"lib\"); print(demo::f())'",
        "R",
        "Rscript",
    ),
    sh(
        "dpkg's tools",
        "mkdir -p p/DEBIAN p/usr; printf 'Package: demo\\nVersion: 1\\nArchitecture: all\\nMaintainer: a\\nDescription: d\\n' > p/DEBIAN/control; dpkg-deb --root-owner-group -b p d.deb; dpkg-deb -f d.deb Version; dpkg-deb -x d.deb out; ls out",
        "dpkg-deb",
    ),
    sh(
        "npm-like install",
        'mkdir -p pkg node_modules; echo \'module.exports = 42\' > pkg/index.js; echo \'{"name": "pkg", "version": "1.0.0", "bin": "cli.js"}\' > pkg/package.json; printf \'#!/usr/bin/env node\\nconsole.log(require("./index")); process.exitCode = 4\\n\' > pkg/cli.js; chmod +x pkg/cli.js; tar czf p.tgz pkg; tar xzf p.tgz -C node_modules; node -e \'console.log(require("pkg"))\'; node_modules/pkg/cli.js; echo $?',
        "node",
    ),
    py(
        "source distribution",
        "import subprocess, sys, os; os.makedirs('s'); open('s/m.c', 'w').write('#include <Python.h>\\n'); print(subprocess.run(['cc', '-E', '-x', 'c', '/dev/null'], stdout=-1).returncode)",
        "cc",
    ),
    py(
        "byte-compiling",
        "import compileall, os; os.makedirs('p'); [open(f'p/m{i}.py', 'w').write(f'x = {i}\\n') for i in range(40)]; print(compileall.compile_dir('p', quiet=1, workers=2), len(os.listdir('p/__pycache__')))",
    ),
)
