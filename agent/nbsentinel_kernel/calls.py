"""What a kernel's code asks of AWS: from the heads of its HTTP requests, and from botocore's own hooks.

Told are service, region, operation, host, names of what it is about, the request's id, and the access key id as a keyed
hash. Never signatures, tokens, bodies, values of queries or other headers.
"""

from __future__ import annotations

import _thread
import contextvars
import hashlib
import hmac
import re
import time

from nbsentinel_kernel.channel import quiet, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Tell = Callable[["Call", str, str], None]

HEAD_LIMIT = 16384
MERGE_S = 600.0
"""How long a request may belong to the botocore call that its thread or task is in."""
NAME_LIMIT = 256
OPEN_LIMIT = 256
"""Calls without an end that are kept."""
_REQUEST = re.compile(
    rb"(GET|POST|PUT|DELETE|HEAD|PATCH) (/[^ ?\r\n]{0,4096})(?:\?([^ \r\n]{0,8192}))? HTTP/1\.[01]\r\n"
)
_HEADER = re.compile(rb"(?i)\r\n(host|x-amz-target|authorization|x-amz-copy-source):[ \t]*([^\r\n]{1,2048})")
_SCOPE = re.compile(
    r"(?i)Credential=([A-Z0-9_-]{16,128})(?:/|%2F)\d{8}(?:/|%2F)(?:([a-z0-9-]{2,32})(?:/|%2F))?([a-z0-9-]{2,64})"
    r"(?:/|%2F)aws4_request"
)
"""The region is missing where a signature counts in all of them (SigV4A)."""
_OLD_S3 = re.compile(r"(?:^|[&?])AWSAccessKeyId=([A-Z0-9]{16,128})(?:&|$)|^AWS ([A-Z0-9]{16,128}):")
"""Signature version 2, which S3 still takes and boto3 makes addresses with."""
_ACTION = re.compile(r"(?:^|[&?])Action=([A-Za-z0-9]{1,64})(?:&|$)")
_NAMES = frozenset(
    " ".join(
        (
            "Bucket FunctionName EndpointName SecretId Name TableName RoleArn RoleName UserName GroupName PolicyArn",
            "KeyId QueueUrl TopicArn StreamName ClusterName DomainId SpaceName UserProfileName modelId logGroupName",
            "repositoryName StackName TrainingJobName ProcessingJobName NotebookInstanceName InstanceId",
        )
    ).split()
)
"""Parameters that name what a call is about, in any service."""
_VIRTUAL = re.compile(r"(?i)([a-z0-9.-]{3,}?)\.s3(?:[.-]|express-)[a-z0-9.-]*amazonaws\.com")
_S3_PARTS = {
    **{name: "Bucket" + name.title() for name in ("policy", "location", "website", "encryption", "logging", "cors")},
    **{name: "{}" + name.title() for name in ("acl", "tagging")},
    **{name: "Object" + name.title() for name in ("retention", "torrent", "attributes")},
    "policyStatus": "BucketPolicyStatus",
    "publicAccessBlock": "PublicAccessBlock",
    "versioning": "BucketVersioning",
    "lifecycle": "BucketLifecycleConfiguration",
    "replication": "BucketReplication",
    "notification": "BucketNotificationConfiguration",
    "accelerate": "BucketAccelerateConfiguration",
    "requestPayment": "BucketRequestPayment",
    "ownershipControls": "BucketOwnershipControls",
    "object-lock": "ObjectLockConfiguration",
    "legal-hold": "ObjectLegalHold",
}
_S3_VERBS = {"GET": "Get", "HEAD": "Head", "PUT": "Put", "DELETE": "Delete"}
_S3_UPLOADS = {
    "PUT": "UploadPart",
    "GET": "ListParts",
    "DELETE": "AbortMultipartUpload",
    "POST": "CompleteMultipartUpload",
}
_S3_POSTS = {
    "delete": "DeleteObjects",
    "uploads": "CreateMultipartUpload",
    "restore": "RestoreObject",
    "select": "SelectObjectContent",
}
_S3_LISTS = {"uploads": "ListMultipartUploads", "versions": "ListObjectVersions", "list-type": "ListObjectsV2"}
_PATHS = (
    ("lambda", re.compile(r"/2015-03-31/functions/([^/]+)/invocations$"), "Invoke", "FunctionName"),
    ("sagemaker", re.compile(r"/endpoints/([^/]+)/invocations$"), "InvokeEndpoint", "EndpointName"),
    ("bedrock", re.compile(r"/model/([^/]+)/invoke$"), "InvokeModel", "modelId"),
    ("bedrock", re.compile(r"/model/([^/]+)/converse$"), "Converse", "modelId"),
)
_SMITHY = re.compile(r"/service/[A-Za-z0-9_.]+/operation/([A-Za-z0-9]+)$")


class Call:
    """One call of an API, as far as it is known."""

    __slots__ = ("access_key", "at", "done", "host", "operation", "outer", "region", "resources", "service")

    def __init__(self, service: str, operation: str = "", region: str = "", host: str = "") -> None:
        self.service, self.operation, self.region, self.host = service, operation, region, host
        self.resources: dict[str, str] = {}
        self.access_key = ""
        self.outer: Call | None = None
        self.at = time.monotonic()
        self.done = False


def bucket(host: str, path: str) -> tuple[str, bool]:
    """Return the bucket of an S3 request, and whether an object in it is meant."""
    virtual = _VIRTUAL.match(host)
    if virtual is not None:
        return virtual.group(1), len(path) > 1
    name, _, rest = path.lstrip("/").partition("/")
    return name, bool(rest)


def s3_operation(method: str, path: str, query: str, host: str, copies: bool) -> tuple[str, str]:
    """Return the operation of an S3 request, empty where it cannot be told, and its bucket."""
    name, is_object = bucket(host, path)
    if not name:
        return "ListBuckets" if method == "GET" else "", ""
    keys = [part.partition("=")[0] for part in query.split("&")]
    verb, thing = _S3_VERBS.get(method, ""), "Object" if is_object else "Bucket"
    if "uploadId" in keys:
        return _S3_UPLOADS.get(method, ""), name
    for key in keys:
        if key in _S3_PARTS and verb:
            return verb + _S3_PARTS[key].format(thing), name
        if method == "POST" and key in _S3_POSTS:
            return _S3_POSTS[key], name
        if method == "GET" and not is_object and key in _S3_LISTS:
            return _S3_LISTS[key], name
    if not is_object and method in ("GET", "PUT"):
        return ("ListObjects" if method == "GET" else "CreateBucket"), name
    return ("CopyObject" if copies and method == "PUT" else verb + thing if verb else ""), name


def read_request(head: bytes) -> Call | None:
    """Return the call that the head of an HTTP request makes, its access key id as it is; None for other requests."""
    request = _REQUEST.match(head)
    if request is None:
        return None
    headers = {name.lower(): value.decode("latin-1") for name, value in _HEADER.findall(head[:HEAD_LIMIT])}
    method, path, query = (part.decode("latin-1") for part in request.groups(b""))
    signed = headers.get(b"authorization", "")
    scope, old = _SCOPE.search(signed) or _SCOPE.search(query), _OLD_S3.search(signed) or _OLD_S3.search(query)
    if scope is not None:
        key, region, service = scope.groups("")
    elif old is not None:
        key, region, service = old.group(1) or old.group(2), "", "s3"
    else:
        return None
    call = Call(service, region=region, host=headers.get(b"host", "")[:NAME_LIMIT])
    call.access_key = key
    target, action, smithy = headers.get(b"x-amz-target", ""), _ACTION.search(query), _SMITHY.match(path)
    if target:
        call.operation = target.rpartition(".")[2][:NAME_LIMIT]
    elif action or smithy:
        found = action or smithy
        call.operation = found.group(1) if found else ""
    elif service in ("s3", "s3express"):
        call.operation, name = s3_operation(method, path, query, call.host, b"x-amz-copy-source" in headers)
        if name:
            call.resources["Bucket"] = name[:NAME_LIMIT]
    else:
        for wanted, pattern, operation, parameter in _PATHS:
            match = pattern.match(path) if service == wanted else None
            if match is not None:
                call.operation, call.resources[parameter] = operation, match.group(1)[:NAME_LIMIT]
    return call


_CALL: contextvars.ContextVar[Call | None] = contextvars.ContextVar("nbsentinel_call", default=None)
_NEXT: contextvars.ContextVar[tuple[str, dict[str, str]] | None] = contextvars.ContextVar(
    "nbsentinel_next", default=None
)


class Calls:
    """Joins what the requests and what botocore say, so that each call is told once.

    Args:
        tell: Takes a call, its request id and how it was seen.
        key: Returns the key that access key ids are hashed with.
    """

    def __init__(self, tell: Tell, key: Callable[[], bytes]) -> None:
        self._tell, self._key = tell, key
        self._open: dict[int, tuple[int, Call]] = {}
        """By thread: the connection and the call whose operation its body will name."""
        self._sent: dict[int, tuple[int, Call]] = {}
        """Calls of botocore without an answer yet, with the thread that made them."""

    # From http.client

    def request(self, connection: object, data: object) -> None:
        """Take what `http.client` is about to send: a head, or a part of a body."""
        here = _thread.get_ident()
        waiting = self._open.get(here)
        if not isinstance(data, bytes):
            return
        call = read_request(data) if data[:1].isalpha() else None
        if waiting is not None:
            if call is None and waiting[0] == id(connection):
                action = _ACTION.search(data[:4096].decode("latin-1"))
                waiting[1].operation = action.group(1) if action else ""
            del self._open[here]
            self._finish(waiting[1], "", "http.client")
        if call is None:
            return
        call.access_key = self._hashed(call.access_key)
        own = _CALL.get()
        if own is not None and not own.done and time.monotonic() - own.at < MERGE_S and own.host in ("", call.host):
            own.host, own.region = call.host, call.region or own.region
            own.access_key = call.access_key
        elif call.operation or not data.startswith(b"POST / "):
            self._finish(call, "", "http.client")
        else:
            self._open[here] = id(connection), call
            if len(self._open) > OPEN_LIMIT:
                self._finish(self._open.pop(next(iter(self._open)))[1], "", "http.client")

    def forget(self) -> None:
        """Leave a call that never came to its end: a new cell begins in this context."""
        _CALL.set(None)

    def cell_ended(self, failed: bool) -> None:
        """Tell of what will not come to its end any more: an interrupt leaves calls without an answer."""
        here = _thread.get_ident()
        waiting = self._open.pop(here, None)
        if waiting is not None:
            self._finish(waiting[1], "", "http.client")
        if failed:
            for thread, call in list(self._sent.values()):
                if thread == here:
                    self._finish(call, "", "botocore")

    def _finish(self, call: Call, request_id: str, via: str) -> None:
        self._sent.pop(id(call), None)
        if not call.done:
            call.done = True
            self._tell(call, request_id, via)

    def _hashed(self, access_key: str) -> str:
        return hmac.new(self._key(), b"access-key:" + access_key.encode(), hashlib.sha256).hexdigest()[:32]

    # From botocore: every hook returns None, anything else would change what it does

    def attach(self, botocore: Any) -> bool:
        """Ask botocore to show us each session that is made from now on; return whether it is ready for that."""
        register = getattr(botocore, "register_initializer", None)
        if register is None:
            return False
        register(self._session)
        return True

    def _session(self, session: Any) -> None:
        with quiet:
            for name in ("before-parameter-build", "before-call", "before-send", "after-call", "after-call-error"):
                session.register(name, getattr(self, name.replace("-", "_")))

    def before_parameter_build(self, params: Any = None, model: Any = None, **_: Any) -> None:
        """Keep names of what the next call is about."""
        with quiet:
            named = {}
            for name in _NAMES.intersection(params) if isinstance(params, dict) else ():
                if isinstance(params[name], str):
                    named[name] = text(params[name], NAME_LIMIT)
            _NEXT.set((text(model.name), named))

    def before_call(self, model: Any = None, context: Any = None, **_: Any) -> None:
        """Begin a call; one that is made for another (a role for its credentials) is inside it."""
        with quiet:
            service = model.service_model
            call = Call(text(service.signing_name), text(model.name), text((context or {}).get("client_region")))
            ahead, outer = _NEXT.get(), _CALL.get()
            if ahead is not None and ahead[0] == call.operation:
                call.resources = ahead[1]
            call.outer = outer if outer is not None and not outer.done else None
            _CALL.set(call)

    def before_send(self, request: Any = None, **_: Any) -> None:
        """Learn whose key signed it, and where it goes; called for every attempt."""
        with quiet:
            call = _CALL.get()
            if call is None or call.done:
                return
            signed = request.headers.get("Authorization", "")
            scope = _SCOPE.search(signed.decode("latin-1") if isinstance(signed, bytes) else signed)
            if scope is not None:
                call.access_key, call.region = self._hashed(scope.group(1)), scope.group(2) or call.region
            call.host = text(request.url.partition("://")[2].partition("/")[0].rpartition("@")[2], NAME_LIMIT)
            self._sent[id(call)] = _thread.get_ident(), call
            if len(self._sent) > OPEN_LIMIT:  # a task that was cancelled leaves its call without an end
                self._finish(next(iter(self._sent.values()))[1], "", "botocore")

    def after_call(self, parsed: Any = None, **_: Any) -> None:
        """End a call with its request id."""
        with quiet:
            found = parsed.get("ResponseMetadata", {}).get("RequestId") if isinstance(parsed, dict) else None
            self._ended(text(found, NAME_LIMIT))

    def after_call_error(self, **_: Any) -> None:
        """End a call that got no answer."""
        with quiet:
            self._ended("")

    def _ended(self, request_id: str) -> None:
        call = _CALL.get()
        if call is not None:
            _CALL.set(call.outer)
            call.outer = None
            self._finish(call, request_id, "botocore")
