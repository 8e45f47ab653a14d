"""What runs again by itself: changes of start-up files by several programs and in several ways."""

from __future__ import annotations

from attacks.cases.acts.base import LOW, MEDIUM, Act
from live.programs import Language

_MARK = "inert-line-of-the-test"


def _stays(
    name: str, rule: str, technique: str, language: Language, text: str, *, severity: int = MEDIUM, **more: bool
) -> Act:
    return Act(name, rule, technique, language, text, _MARK, severity=severity, alone=True, **more)


def _python(path: str) -> str:
    return f"""
import os, pathlib
path = pathlib.Path(os.environ["HOME"], {path!r})
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text("# {_MARK}\\n")
print(path.read_text())
"""


SHELLS = (
    _stays(
        "stay-bashrc",
        "persistence_shell",
        "T1546.004",
        Language.BASH,
        f"echo '# {_MARK}' >> ~/.bashrc; tail -n 1 ~/.bashrc",
    ),
    _stays("stay-profile", "persistence_shell", "T1546.004", Language.PYTHON, _python(".profile")),
    _stays(
        "stay-zshrc",
        "persistence_shell",
        "T1546.004",
        Language.PERL,
        f"""
open my $file, '>>', "$ENV{{HOME}}/.zshrc" or die; print $file "# {_MARK}\\n"; close $file;
open $file, '<', "$ENV{{HOME}}/.zshrc"; print <$file>;
""",
    ),
    _stays(
        "stay-zprofile",
        "persistence_shell",
        "T1546.004",
        Language.NODE,
        f"""
const fs = require('fs'), path = process.env.HOME + '/.zprofile';
fs.appendFileSync(path, '# {_MARK}\\n');
console.log(fs.readFileSync(path, 'utf8'));
""",
    ),
    _stays(
        "stay-moved-into-place",
        "persistence_shell",
        "T1546.004",
        Language.BASH,
        f"echo '# {_MARK}' > x; mv x ~/.bash_login; cat ~/.bash_login",
    ),
    _stays(
        "stay-edited-in-place",
        "persistence_shell",
        "T1546.004",
        Language.BASH,
        f"echo a > ~/.bash_profile; sed -i 's/^a/# {_MARK}/' ~/.bash_profile; cat ~/.bash_profile",
    ),
    _stays(
        "stay-linked",
        "persistence_shell",
        "T1546.004",
        Language.BASH,
        f"echo '# {_MARK}' > kept; ln -s $PWD/kept ~/.bash_logout; cat ~/.bash_logout",
    ),
    _stays(
        "stay-mapped",
        "persistence_shell",
        "T1546.004",
        Language.C,
        f"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void) {{
    char path[200], line[] = "# {_MARK}\\n";
    snprintf(path, sizeof path, "%s/.zshenv", getenv("HOME"));
    int file = open(path, O_RDWR | O_CREAT, 0600);
    ftruncate(file, sizeof line - 1);
    char *text = mmap(0, sizeof line - 1, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    memcpy(text, line, sizeof line - 1);
    munmap(text, sizeof line - 1);
    close(file);
    execl("/bin/cat", "cat", path, (char *)0);
}}
""",
    ),
    _stays(
        "stay-user-service",
        "persistence_user_service",
        "T1543.002",
        Language.BASH,
        f"d=~/.config/systemd/user; mkdir -p $d; echo '# {_MARK}' > $d/update.service; cat $d/update.service",
    ),
    _stays(
        "stay-autostart",
        "persistence_user_service",
        "T1547.013",
        Language.PYTHON,
        _python(".config/autostart/x.desktop"),
    ),
)
OTHERS = (
    _stays(
        "stay-ipython-startup",
        "persistence_python_startup",
        "T1546",
        Language.PYTHON,
        _python(".ipython/profile_default/startup/10-x.py"),
    ),
    _stays(
        "stay-ipython-configuration",
        "persistence_python_startup",
        "T1546",
        Language.BASH,
        f"d=~/.ipython/profile_default; mkdir -p $d; echo '# {_MARK}' | tee $d/ipython_config.py",
    ),
    _stays(
        "stay-path-file",
        "persistence_python_startup",
        "T1546.018",
        Language.PYTHON,
        _python(".local/lib/python3.11/site-packages/x.pth"),
    ),
    _stays(
        "stay-user-customize",
        "persistence_python_startup",
        "T1546.018",
        Language.BASH,
        f"d=~/.local/lib/python3.11/site-packages; mkdir -p $d; echo '# {_MARK}' > x; cp x $d/usercustomize.py; "
        "cat $d/usercustomize.py",
    ),
    _stays(
        "stay-jupyter-configuration",
        "persistence_jupyter_config",
        "T1546",
        Language.PYTHON,
        _python(".jupyter/jupyter_server_config.py"),
    ),
    _stays(
        "stay-jupyter-part",
        "persistence_jupyter_config",
        "T1546",
        Language.BASH,
        f"d=~/.jupyter/jupyter_server_config.d; mkdir -p $d; echo '\"{_MARK}\"' > $d/x.json; cat $d/x.json",
    ),
    _stays(
        "stay-kernel-specification",
        "persistence_jupyter_parts",
        "T1546",
        Language.PYTHON,
        _python(".local/share/jupyter/kernels/own/kernel.json"),
        severity=LOW,
    ),
    _stays(
        "stay-authorized-key",
        "persistence_ssh",
        "T1098.004",
        Language.BASH,
        f"mkdir -p ~/.ssh; echo '# {_MARK}' >> ~/.ssh/authorized_keys; tail -n 1 ~/.ssh/authorized_keys",
    ),
    _stays("stay-ssh-start", "persistence_ssh", "T1098.004", Language.PYTHON, _python(".ssh/rc")),
    _stays(
        "stay-git-hook",
        "persistence_git_hook",
        "T1546",
        Language.BASH,
        f"mkdir -p ~/project/.git/hooks; cd ~/project/.git/hooks; echo '# {_MARK}' > post-checkout; cat post-checkout",
    ),
    _stays(
        "stay-git-hook-ruby",
        "persistence_git_hook",
        "T1546",
        Language.RUBY,
        f"""
require 'fileutils'
folder = ENV['HOME'] + '/project/.git/hooks'
FileUtils.mkdir_p(folder)
File.write(folder + '/pre-push', "# {_MARK}\\n")
puts File.read(folder + '/pre-push')
""",
    ),
)
HISTORY = (
    Act(
        "history-linked-away",
        "history_disabled_by_command",
        "T1070.003",
        Language.BASH,
        "ln -sf /dev/null ~/.bash_history; readlink ~/.bash_history",
        "/dev/null",
        alone=True,
        in_cell=True,
    ),
    Act(
        "history-unset",
        "history_disabled_by_command",
        "T1070.003",
        Language.BASH,
        "bash -c 'unset HISTFILE; history -c; echo file: ${HISTFILE-none}'",
        "file: none",
        in_cell=True,
    ),
    Act(
        "history-shredded",
        "history_disabled_by_command",
        "T1070.003",
        Language.BASH,
        "echo ls > ~/.zsh_history; shred -u ~/.zsh_history; [ -e ~/.zsh_history ] || echo gone now",
        "gone now",
        alone=True,
        in_cell=True,
    ),
    Act(
        "log-removed",
        "log_wiped",
        "T1070.002",
        Language.BASH,
        "unshare -rm sh -c 'mount -t tmpfs a /var/log; f=/var/log/apps.log; echo a > $f; rm $f && echo gone'",
        "gone",
        programs=("unshare",),
        in_cell=True,
    ),
    Act(
        "history-rewritten-by-code",
        "history_rewritten",
        "T1070.003",
        Language.PYTHON,
        """
import os, pathlib, time
path = pathlib.Path(os.environ["HOME"], ".zsh_history")
path.write_text("ls\\nsecret command\\n")
time.sleep(0.5)
with path.open("r+") as history:
    history.write("ls\\n")
    history.truncate()
    time.sleep(0.3)
print("left:", path.read_text())
path.unlink()
""",
        "left: ls",
        alone=True,
    ),
    Act(
        "history-removed-by-code",
        "history_removed",
        "T1070.003",
        Language.PYTHON,
        """
import os, pathlib, time
path = pathlib.Path(os.environ["HOME"], ".python_history")
path.write_text("1\\n")
time.sleep(0.3)
path.unlink()
print("left:", path.exists())
""",
        "left: False",
        severity=LOW,
        alone=True,
    ),
)
CASES: tuple[Act, ...] = (*SHELLS, *OTHERS, *HISTORY)
