# What notebooks, builds and shells do all day; run under the guard, it is what the part `sigma` matches rules on.
cd "$1" || exit 1
mkdir -p src data out && cd src || exit 1
for n in 1 2 3 4 5 6 7 8; do
  printf 'int main(void) { return %s; }\n' "$n" > "main$n.c"
  printf 'import sys\nprint(sys.argv, %s)\n' "$n" > "job$n.py"
  printf 'name,value\na,%s\nb,2\n' "$n" > "../data/part$n.csv"
done
git init -q . 2>/dev/null
for n in 1 2 3 4 5 6 7 8; do
  git add "main$n.c" "job$n.py" 2>/dev/null
  git -c user.name=u -c user.email=u@example.com commit -qm "step $n" 2>/dev/null
  python3 -I -S "job$n.py" --epochs "$n" --out "../out/model$n.bin" > /dev/null
  gcc -O1 -o "../out/main$n" "main$n.c" 2>/dev/null && "../out/main$n"
  grep -n "value" "../data/part$n.csv" | sort -u | head -n "$n" > /dev/null
  sed -e "s/a/b$n/" "../data/part$n.csv" | awk -F, '{print $1}' | tr a-z A-Z | wc -l > /dev/null
  find .. -name "*.$n" -type f -exec cat {} + > /dev/null
  tar -czf "../out/src$n.tar.gz" "main$n.c" && tar -tzf "../out/src$n.tar.gz" > /dev/null
  sh -c "ls -la ../data/part$n.csv && stat ../out/src$n.tar.gz" > /dev/null
  cp "../data/part$n.csv" "../out/copy$n.csv" && mv "../out/copy$n.csv" "../out/moved$n.csv" && rm -f "../out/moved$n.csv"
  env LANG=C "PART=$n" bash -c 'test -n "$PART" && date +%s && uname -a && id -u' > /dev/null
  du -sh .. > /dev/null; df -h . > /dev/null; md5sum "main$n.c" > /dev/null; head -c "$n" /dev/zero | base64 > /dev/null
  xargs -n 1 echo < "../data/part$n.csv" > /dev/null; tail -n "$n" "job$n.py" | cut -d: -f1 | uniq -c > /dev/null
  perl -e "print $n" > /dev/null; diff -u main1.c "main$n.c" > /dev/null
done
git log --oneline > /dev/null 2>&1; git status --porcelain > /dev/null 2>&1; git diff --stat > /dev/null 2>&1
