"""Changes of what runs again by itself, and of histories, each with an ordinary act that resembles it."""

from __future__ import annotations

from support.behaviours.acts import FILE, PIP, PROCESS, Row, changed, ran

PERSISTENCE: list[Row] = [
    (
        "persistence_shell",
        FILE,
        changed("persistence-shell", ".profile"),
        changed("persistence-shell", ".bashrc", CandidateCommandLine=["/opt/conda/bin/python conda init bash"]),
    ),
    (
        "persistence_by_installer",
        FILE,
        changed("persistence-shell", ".bashrc", CandidateCommandLine=["conda init bash"]),
        changed("history", ".bash_history", CandidateCommandLine=["conda init bash"]),
    ),
    (
        "persistence_user_service",
        FILE,
        changed("persistence-shell", ".config/systemd/user/update.timer", "create"),
        changed("persistence-shell", ".config/systemd/user/update.timer", "delete"),
    ),
    (
        "persistence_cron",
        FILE,
        changed("persistence-cron", "/etc/cron.d/x"),
        changed("persistence-cron", "/etc/cron.d/x", "delete"),
    ),
    ("crontab_installed", PROCESS, ran("crontab -", User="u"), ran("crontab -l", User="u")),
    (
        "persistence_python_startup",
        FILE,
        changed("persistence-python", ".local/lib/python3.12/site-packages/x.pth", "create"),
        changed("persistence-python", ".local/lib/python3.12/site-packages/x.pth", CandidateCommandLine=PIP),
    ),
    (
        "persistence_python_startup",
        FILE,
        changed("persistence-python", ".ipython/profile_default/startup/00.py"),
        changed("persistence-python", ".ipython/profile_default/startup/README", "create"),
    ),
    (
        "persistence_jupyter_config",
        FILE,
        changed("persistence-jupyter", ".jupyter/jupyter_server_config.py"),
        changed("persistence-jupyter", ".jupyter/labconfig/page_config.json"),
    ),
    (
        "persistence_jupyter_parts",
        FILE,
        changed("persistence-jupyter", ".local/share/jupyter/kernels/x/kernel.json"),
        changed("persistence-jupyter", ".local/share/jupyter/kernels/x/kernel.json", "delete"),
    ),
    (
        "persistence_ssh",
        FILE,
        changed("persistence-ssh", ".ssh/authorized_keys"),
        changed("ssh", ".ssh/known_hosts"),
    ),
    (
        "persistence_git_hook",
        FILE,
        changed("persistence-git", "project/.git/hooks/post-merge", "create"),
        changed("persistence-git", "project/.git/hooks/post-merge.sample", "create"),
    ),
    (
        "persistence_git_hook",
        FILE,
        changed("persistence-git", "project/.git/hooks/pre-commit", "create"),
        changed("persistence-git", "project/.git/hooks/pre-commit", CandidateCommandLine=["python pre-commit install"]),
    ),
    (
        "persistence_minor",
        FILE,
        changed("persistence-program", ".local/bin/tool", "create"),
        changed("persistence-git", "project/.git/config"),
    ),
    (
        "persistence_loader",
        FILE,
        changed("persistence-loader", "/etc/ld.so.preload"),
        changed("persistence-loader", "/etc/environment"),
    ),
    (
        "persistence_system_wide",
        FILE,
        changed("persistence-loader", "/etc/profile.d/x.sh"),
        changed("persistence-loader", "/etc/profile.d/x.sh", "delete"),
    ),
    ("history_removed", FILE, changed("history", ".bash_history", "delete"), changed("history", ".bash_history")),
    (
        "history_linked_away",
        FILE,
        changed("history", ".bash_history", LinkTarget="/dev/null"),
        changed("history", ".bash_history", LinkTarget="/mnt/efs/home/.bash_history"),
    ),
    (
        "history_rewritten",
        FILE,
        changed("history", ".bash_history", Image="/usr/bin/python3.11"),
        changed("history", ".bash_history", Image="/bin/bash"),
    ),
    (
        "history_rewritten",
        FILE,
        changed("history", ".zsh_history", "rename", Image="/usr/bin/sed"),
        changed("history", ".python_history", Image="/usr/bin/python3.11"),
    ),
    (
        "history_disabled_by_command",
        PROCESS,
        ran("ln -sf /dev/null /home/u/.bash_history"),
        ran("tail /home/u/.bash_history"),
    ),
    (
        "history_disabled_by_command",
        PROCESS,
        ran("bash -c unset HISTFILE; history -c"),
        ran("bash -c HISTSIZE=1000 ls"),
    ),
    ("log_wiped", PROCESS, ran("rm -rf /var/log/apps"), ran("tail -f /var/log/apps/app_container.log")),
]
