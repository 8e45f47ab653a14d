"""Tools of every day: archives, version control, builds, cryptography, databases, terminals."""

from guard.programs.case import sh

_GIT = "git -c user.name=a -c user.email=a@b -c init.defaultBranch=main -c protocol.file.allow=always"
_HOME = """
mkdir -p .ssh .aws .config/app d; echo '[default]' > .aws/credentials; echo key > .ssh/id_ed25519; chmod 700 .ssh; chmod 600 .ssh/* .aws/credentials
ln -s .ssh link; ln d/../.aws/credentials hard; mkfifo pipe; echo x > .hidden; seq 2000 > d/big; touch -d 2020-01-01 d/old; mkdir empty
"""
CASES = (
    sh("tar", "mkdir d; seq 9 > d/a; tar cf t.tar d; tar tf t.tar"),
    sh(
        "tar of a home",
        _HOME
        + "t=../home/t.tgz; tar --sort=name -czf $t .; echo $?; tar tzf $t; mkdir out; tar xzf $t -C out; echo $?; diff -r --no-dereference -x out -x pipe . out; echo $?; stat -c '%a %h' out/.ssh out/.aws/credentials",
    ),
    sh(
        "tar with other programs",
        "seq 999 > a; for c in gzip bzip2 xz; do tar --use-compress-program=$c -cf a.$c a; tar -xOf a.$c | md5sum; done; tar cf - a | tar xf - -O | md5sum; tar xf none; echo $?",
        "xz",
        "bzip2",
    ),
    sh(
        "tar over a pipe of a shell",
        "mkdir a b; seq 99 > a/f; (cd a; tar cf - .) | (cd b; tar xpf -); cmp a/f b/f; echo $?",
    ),
    sh(
        "tar with hooks",
        "seq 99 > a; tar cf t a; tar xf t --to-command='wc -l; echo $TAR_FILENAME'; tar cf u --checkpoint=1 --checkpoint-action=exec='true' a; echo $?",
    ),
    sh("cpio and ar", "seq 9 > a; ar rc x.a a; ar t x.a; ar p x.a a | md5sum", "ar"),
    sh("zip", "seq 99 > a; zip -q z.zip a; unzip -p z.zip | md5sum; unzip -q z.zip none; echo $?", "zip", "unzip"),
    sh(
        "compressors",
        "for c in gzip bzip2 xz zstd; do command -v $c >/dev/null && seq 5000 | $c | $c -d | md5sum; done",
    ),
    sh(
        "rsync",
        _HOME
        + "mkdir ../home/to; rsync -a --exclude pipe ./ ../home/to/; echo $?; rsync -ain --delete --exclude pipe ./ ../home/to/; rm d/old; touch -d @1000000000 d; rsync -ai --delete --exclude pipe ./ ../home/to/; rsync -a none x 2>/dev/null; echo $?",
        "rsync",
    ),
    sh(
        "rsync through a shell",
        "seq 99 > a; mkdir to; printf '#!/bin/sh\\nshift\\nexec \"$@\"\\n' > rsh; chmod +x rsh; rsync -e ./rsh a host:$PWD/to/; echo $?; cmp a to/a",
        "rsync",
    ),
    sh(
        "searching a home",
        _HOME
        + "find . -newer d/old -type f | sort; find . -name '.*' -prune -o -print | sort; grep -r --include='*' -l default . | sort; file -b d/big; du -s empty >/dev/null; echo $?; find . -type f -size +1k -delete; ls d",
        "file",
    ),
    sh(
        "copies",
        "seq 999 > a; cp --reflink=auto a b; cp -al a c; mv b d; dd if=a of=e bs=64 status=none; cmp a e; install -m 750 a f; stat -c '%a %h' c f; truncate -s 0 d; stat -c %s d; shred -u d; ls; split -n 3 a p; cat p* | cmp - a; echo $?",
    ),
    sh("git", f"{_GIT} init -q g && cd g && {_GIT} commit -q --allow-empty -m x && git log --format=%s", "git"),
    sh(
        "git with branches and a clone",
        f"""
        g="{_GIT}"; $g init -q a; cd a; seq 9 > f; $g add f; $g commit -qm one; $g checkout -qb b; echo x >> f; $g commit -qam two; $g checkout -q main; $g merge -q b; git log --format=%s
        cd ..; $g clone -q --no-hardlinks file://$PWD/a c; cd c; git log --oneline | wc -l; echo y >> f; git diff --stat | cat; git stash -q 2>/dev/null; git status --short; $g gc -q; git fsck 2>/dev/null; echo $?
        $g submodule --quiet add ../a s; ls s; git grep -c 9 | cat
        """,
        "git",
    ),
    sh(
        "git hooks and failures",
        f"g='{_GIT}'; $g init -q a; cd a; printf '#!/bin/sh\\necho hook >&2; exit 1\\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; $g commit -q --allow-empty -m x; echo $?; $g -c alias.z='!echo alias; exit 3' z; echo $?; git clone -q /no/such 2>/dev/null; echo $?; GIT_EDITOR=false $g commit --no-verify --allow-empty; echo $?; git ls-remote git://127.0.0.1:1/x 2>/dev/null; echo $?",
        "git",
    ),
    sh(
        "make",
        "printf 'all: a b\\n\\t@cat a b\\na b:\\n\\t@echo $@ > $@\\nbad:\\n\\t@exit 3\\nkilled:\\n\\t@kill -9 $$$$\\n' > Makefile; make; make; make bad; echo $?; make killed; echo $?; make -n all; make -j4 -B",
        "make",
    ),
    sh(
        "recursive make",
        "mkdir s; printf 'x:\\n\\t@echo in $(MAKELEVEL)\\n' > s/Makefile; printf 'x := $(shell echo from a shell)\\nall:\\n\\t@echo $(x)\\n\\t@$(MAKE) --no-print-directory -C s -j3\\n' > Makefile; make -j3",
        "make",
    ),
    sh(
        "compiler",
        "echo 'int main(void) { return 6; }' > a.c; gcc -O2 -pipe a.c -o a; ./a; echo $?; gcc -c a.c; gcc -save-temps -o b a.c; ls; echo 'int main( {' | gcc -x c - ; echo $?; gcc none.c; echo $?",
        "gcc",
    ),
    sh(
        "link-time optimisation",
        "echo 'int f(void); int main(void) { return f(); }' > a.c; echo 'int f(void) { return 4; }' > b.c; gcc -flto=2 -O2 a.c b.c -o a; ./a; echo $?",
        "gcc",
    ),
    sh(
        "C++",
        "echo '#include <iostream>\n#include <thread>\nint main() { std::thread t([] { std::cout << 1 << std::endl; }); t.join(); try { throw 3; } catch (int x) { return x; } }' > a.cc; g++ a.cc -o a -pthread; ./a; echo $?",
        "g++",
    ),
    sh(
        "shared library",
        "echo 'int f(void) { return 8; }' > l.c; gcc -shared -fPIC l.c -o libl.so; echo 'int f(void); int main(void) { return f(); }' > m.c; gcc m.c -L. -ll -o m; ./m 2>/dev/null; echo $?; LD_LIBRARY_PATH=. ./m; echo $?; echo '#include <unistd.h>\nint getppid(void) { return 77; }' > p.c; gcc -shared -fPIC p.c -o p.so; LD_PRELOAD=./p.so bash -c 'echo $PPID'",
        "gcc",
    ),
    sh(
        "cmake",
        "printf 'cmake_minimum_required(VERSION 3.5)\\nproject(p C)\\nadd_executable(m m.c)\\n' > CMakeLists.txt; echo 'int main(void) { return 7; }' > m.c; cmake -S . -B b >/dev/null; echo $?; cmake --build b -j2 >/dev/null; b/m; echo $?",
        "cmake",
        "make",
        "gcc",
    ),
    sh(
        "openssl",
        "openssl genpkey -algorithm ed25519 -out k; openssl req -x509 -key k -subj /CN=x -days 9 -out c; openssl x509 -in c -noout -subject; echo text > t; openssl dgst -sha256 t; openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -in t | openssl enc -d -aes-256-cbc -pbkdf2 -pass pass:x; openssl s_client -connect 127.0.0.1:1 </dev/null 2>/dev/null; echo $?",
        "openssl",
    ),
    sh(
        "ssh-keygen",
        "ssh-keygen -q -t ed25519 -N '' -f k -C c; ssh-keygen -y -f k | cut -d' ' -f1; ssh-keygen -y -P bad -f none; echo $?; echo t > t; ssh-keygen -q -Y sign -f k -n n t 2>/dev/null; ls",
        "ssh-keygen",
    ),
    sh(
        "ssh-agent",
        "ssh-keygen -q -t ed25519 -N '' -f k -C mine; eval $(ssh-agent -a $PWD/s) >/dev/null; ssh-add -q k; ssh-add -l | cut -d' ' -f3-; ssh-agent -k >/dev/null; ssh-add -l 2>/dev/null; echo $?; ssh-agent -a $PWD/u sh -c 'ssh-add -l; exit 5'; echo $?",
        "ssh-agent",
        "ssh-keygen",
    ),
    sh("gpg", "gpg --homedir $PWD --batch --version | grep -c libgcrypt", "gpg"),
    sh(
        "sqlite3",
        "sqlite3 d 'create table t (x); insert into t values (1), (2); select sum(x) from t; pragma integrity_check'; sqlite3 d .dump; sqlite3 d 'nope'; echo $?; printf '.shell echo child\\n.system exit 3\\n' | sqlite3",
        "sqlite3",
    ),
    sh("script in a pty", "script -qec 'tty >/dev/null; echo $?' /dev/null", "script"),
    sh(
        "script with an exit code",
        "script -qec 'exit 7' log >/dev/null; echo $?; grep -c 'COMMAND_EXIT_CODE=\"7\"' log; script -qc 'stty size >/dev/null; kill -9 $$' /dev/null; echo $?",
        "script",
    ),
    sh(
        "tmux",
        "t='tmux -f /dev/null -S ./s'; $t new-session -d -x 80 -y 24 'sh -c \"echo inside > out; tty >/dev/null && echo tty >> out; exec sleep 50\"'; until grep -q tty out 2>/dev/null; do sleep 0.05; done; cat out; $t list-windows -F '#{window_width}'; $t run-shell 'echo run'; $t kill-server; $t ls 2>/dev/null; echo $?",
        "tmux",
    ),
    sh(
        "tmux with keys",
        "t='tmux -f /dev/null -S ./s'; $t new-session -d -x 80 -y 24 'bash --norc'; $t send-keys 'sleep 50; echo $? > code' Enter; until pgrep -f -x 'sleep 50' -P $($t display -p '#{pane_pid}') >/dev/null; do sleep 0.05; done; $t send-keys C-c; $t send-keys 'echo $? > code; tmux wait-for -S done' Enter; $t wait-for done; cat code; $t kill-server",
        "tmux",
        "pgrep",
    ),
    sh(
        "screen",
        "export SCREENDIR=$PWD/d; mkdir -m 700 d; screen -D -m sh -c 'tty > /dev/null; echo $? > code'; cat code",
        "screen",
    ),
    sh(
        "unshare",
        "unshare -r id -u; echo $?; unshare -rm sh -c 'mount -t tmpfs none /mnt && echo mounted'; echo $?; unshare -n true; echo $?; unshare -rpf sh -c 'echo $$'; echo $?",
        "unshare",
    ),
    sh(
        "sandbox in namespaces",
        "unshare -rmnpf --mount-proc sh -c 'x=$(ps -e -o comm=); echo $x; ip link 2>/dev/null | grep -c lo; kill -9 $$ ; exit 3'; echo $?",
        "unshare",
        "ps",
        "ip",
    ),
    sh(
        "nsenter",
        "nsenter --version >/dev/null; unshare -rm sleep 50 & p=$!; until [ \"$(cat /proc/$p/comm)\" = sleep ]; do :; done; nsenter -t $p -U -m --preserve-credentials sh -c 'echo entered; exit 3'; echo $?; kill $p",
        "nsenter",
        "unshare",
    ),
    sh(
        "ps and friends",
        "sleep 50 & p=$!; ps -o comm= -p $p; ls /proc/$p/task | wc -l; readlink /proc/$p/exe | grep -c sleep; tr '\\0' ' ' < /proc/$p/cmdline; wc -l < /proc/$p/maps | awk '{print ($1 > 5)}'; kill $p",
        "ps",
    ),
    sh(
        "identity",
        "id -u; id -Gn >/dev/null 2>&1; groups >/dev/null 2>&1; umask; logname 2>/dev/null; echo $?; uname -s; nproc >/dev/null; hostname >/dev/null; echo $?",
    ),
    sh(
        "watch files",
        "tail -F f > out 2>/dev/null & p=$!; echo first > f; until grep -q first out 2>/dev/null; do sleep 0.05; done; kill $p; wait $p; echo $?",
    ),
    sh("tail until the end of a process", "sleep 0.3 & tail --pid=$! -f /dev/null; echo ended"),
    sh(
        "parallel sort",
        "seq 30000 | sort -R --random-source=/bin/sh -S 1M -T . --parallel=4 --compress-program=gzip | sort -n -S 1M -T . | md5sum",
    ),
    sh("editors without a screen", "printf 'a\\nb\\n' > f; printf '1d\\nw\\nq\\n' | ed -s f; cat f", "ed"),
    sh(
        "patch and diff",
        "seq 9 > a; sed s/5/five/ a > b; diff -u --label a --label b a b > p; patch -s a p; cmp a b; echo $?; patch -s --dry-run none p < /dev/null >/dev/null 2>&1; echo $?",
        "patch",
    ),
    sh("fakeroot", "fakeroot sh -c 'id -u; touch f; chown 0:0 f; stat -c %u f; exit 3'; echo $?", "fakeroot"),
    sh(
        "start-stop-daemon",
        "start-stop-daemon --start --background --make-pidfile --pidfile $PWD/p --exec /bin/sleep -- 50; until [ -s p ]; do sleep 0.05; done; start-stop-daemon --stop --pidfile $PWD/p --retry 5; echo $?",
        "start-stop-daemon",
    ),
)
