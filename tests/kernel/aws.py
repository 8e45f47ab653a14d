"""An endpoint on loopback that answers AWS SDKs well enough for one call of each kind."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "session-token-of-the-test"
ANSWER = "the-secret-that-the-service-returns"
REQUEST_ID = "11111111-2222-3333-4444-555555555555"
SECRETS = (KEY_ID, SECRET_KEY, SECRET_KEY[:20], TOKEN, ANSWER, "object-body", "a-private-key-name")
"""What no message may contain, whatever the SDK."""
_SIGNATURE = re.compile(r"(?<![A-Za-z])Signature=")
"""Nor a signature; git has settings whose names only end like one."""
_XML = {
    b"GetCallerIdentity": "<GetCallerIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>"
    "<GetCallerIdentityResult><Arn>a</Arn><UserId>u</UserId><Account>1</Account></GetCallerIdentityResult>"
    f"<ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata></GetCallerIdentityResponse>",
    b"AssumeRole": "<AssumeRoleResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><AssumeRoleResult><Credentials>"
    f"<AccessKeyId>{KEY_ID}</AccessKeyId><SecretAccessKey>{ANSWER}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>"
    "<Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>"
    f"<ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata></AssumeRoleResponse>",
}
_BUCKETS = "<ListAllMyBucketsResult><Owner><ID>o</ID></Owner><Buckets/></ListAllMyBucketsResult>"
_OBJECTS = (
    "<ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Name>b</Name><Prefix></Prefix><KeyCount>0</KeyCount>"
    "<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
)


def leaked(text: str) -> list[str]:
    """Return each secret that stands in a text, with what stands around it."""
    found = [text.index(one) for one in SECRETS if one in text]
    found += [match.start() for match in _SIGNATURE.finditer(text)]
    return [text[max(0, at - 120) :][:240] for at in found]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        kind, content = "application/xml", ""
        if "x-amz-target" in self.headers:
            kind, content = "application/x-amz-json-1.1", f'{{"SecretString": "{ANSWER}", "Name": "n"}}'
        elif self.path == "/" and self.command == "POST":
            content = next((text for name, text in _XML.items() if name in body), "")
        elif self.path.startswith("/model/") or self.path.startswith("/endpoints/"):
            kind, content = "application/json", "{}"
        elif self.command == "GET":
            content = _BUCKETS if self.path.split("?")[0] == "/" else _OBJECTS
        data = content.encode()
        self.send_response(200)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(data))),
            ("x-amzn-RequestId", REQUEST_ID),
            ("x-amz-request-id", REQUEST_ID),
            ("ETag", '"0"'),
            ("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815 - names that http.server looks for


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Let clients end as they like."""


@contextmanager
def endpoint() -> Iterator[str]:
    """Serve for the time of a test; yields the URL."""
    server = _Server(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(url: str) -> dict[str, str]:
    """Return the variables with which every SDK finds the endpoint and the credentials."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "ENDPOINT": url,
        "NO_PROXY": "127.0.0.1",
    }
