"""What the head of a request says, decided without a network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsentinel_kernel.calls import read_request

KEY = "ASIAIOSFODNN7EXAMPLE"


def head(line: str, service: str = "s3", host: str = "s3.eu-west-1.amazonaws.com", more: str = "") -> bytes:
    signed = f"Authorization: AWS4-HMAC-SHA256 Credential={KEY}/20260101/eu-west-1/{service}/aws4_request, Signature=ff"
    return f"{line} HTTP/1.1\r\nHost: {host}\r\n{more}{signed}\r\n\r\n".encode()


S3 = {
    "GET /": ("ListBuckets", {}),
    "GET /b?list-type=2&prefix=secret": ("ListObjectsV2", {"Bucket": "b"}),
    "GET /b": ("ListObjects", {"Bucket": "b"}),
    "HEAD /b": ("HeadBucket", {"Bucket": "b"}),
    "PUT /b": ("CreateBucket", {"Bucket": "b"}),
    "DELETE /b": ("DeleteBucket", {"Bucket": "b"}),
    "GET /b?policy": ("GetBucketPolicy", {"Bucket": "b"}),
    "PUT /b?publicAccessBlock": ("PutPublicAccessBlock", {"Bucket": "b"}),
    "GET /b?acl": ("GetBucketAcl", {"Bucket": "b"}),
    "PUT /b/k?acl": ("PutObjectAcl", {"Bucket": "b"}),
    "GET /b?uploads": ("ListMultipartUploads", {"Bucket": "b"}),
    "GET /b/k/l": ("GetObject", {"Bucket": "b"}),
    "PUT /b/k": ("PutObject", {"Bucket": "b"}),
    "DELETE /b/k": ("DeleteObject", {"Bucket": "b"}),
    "POST /b?delete": ("DeleteObjects", {"Bucket": "b"}),
    "POST /b/k?uploads": ("CreateMultipartUpload", {"Bucket": "b"}),
    "PUT /b/k?partNumber=1&uploadId=x": ("UploadPart", {"Bucket": "b"}),
    "POST /b/k?uploadId=x": ("CompleteMultipartUpload", {"Bucket": "b"}),
    "DELETE /b/k?uploadId=x": ("AbortMultipartUpload", {"Bucket": "b"}),
}


@pytest.mark.parametrize("line", S3)
def test_s3(line: str) -> None:
    """The operation of S3 is in method, path and query; the bucket is told, the object is not."""
    call = read_request(head(line))
    assert call is not None
    assert S3[line] == (call.operation, call.resources)


def test_s3_virtual_hosts() -> None:
    """A bucket may stand in the host's name."""
    for host in (
        "my.bucket.s3.eu-west-1.amazonaws.com",
        "my.bucket.s3.amazonaws.com",
        "my.bucket.s3-us-west-2.amazonaws.com",
    ):
        call = read_request(head("GET /key", host=host))
        assert call is not None
        assert (call.operation, call.resources) == ("GetObject", {"Bucket": "my.bucket"})
        listed = read_request(head("GET /?list-type=2", host=host))
        assert listed is not None
        assert listed.operation == "ListObjectsV2"


OTHERS = {
    "target": (
        head("POST /", "secretsmanager", more="X-Amz-Target: secretsmanager.ListSecrets\r\n"),
        "ListSecrets",
        {},
    ),
    "dynamodb": (head("POST /", "dynamodb", more="x-amz-target: DynamoDB_20120810.Scan\r\n"), "Scan", {}),
    "action": (head("GET /?Action=ListUsers&Version=2010-05-08", "iam"), "ListUsers", {}),
    "lambda": (head("POST /2015-03-31/functions/f/invocations", "lambda"), "Invoke", {"FunctionName": "f"}),
    "sagemaker": (head("POST /endpoints/e/invocations", "sagemaker"), "InvokeEndpoint", {"EndpointName": "e"}),
    "bedrock": (head("POST /model/m%3A0/invoke", "bedrock"), "InvokeModel", {"modelId": "m%3A0"}),
    "cbor": (
        head("POST /service/GraniteServiceVersion20100801/operation/ListMetrics", "monitoring"),
        "ListMetrics",
        {},
    ),
    "unknown": (head("GET /v1/things/secret-thing", "eks"), "", {}),
    "copy": (head("PUT /b/k", more="x-amz-copy-source: other/k\r\n"), "CopyObject", {"Bucket": "b"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_services(name: str) -> None:
    """Each protocol names its operation elsewhere; what cannot be told is left empty."""
    raw, operation, resources = OTHERS[name]
    call = read_request(raw)
    assert call is not None
    assert (call.operation, call.resources, call.region, call.access_key) == (operation, resources, "eu-west-1", KEY)


NO_CALLS = (
    b"",
    b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    b"GET /?X-Amz-Credential=short HTTP/1.1\r\nHost: example.com\r\n\r\n",
    b"GET /latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
    b"Credential=ASIAIOSFODNN7EXAMPLE/20260101/eu-west-1/s3/aws4_request",
    b"GET / HTTP/1.1\r\nAuthorization: Bearer AAAAAAAAAAAAAAAAAAAAAAAA\r\n\r\n",
)


@pytest.mark.parametrize("raw", NO_CALLS)
def test_other_requests(raw: bytes) -> None:
    """A request without an AWS signature is no call, and a body is no request."""
    assert read_request(raw) is None


@given(st.binary(max_size=400), st.integers(0, 300))
def test_any_bytes(raw: bytes, place: int) -> None:
    """Whatever a program sends: nothing is raised, and a call has nothing of it but names."""
    good = head("GET /b/k")
    for made in (raw, good[:place] + raw + good[place:]):
        call = read_request(made)
        assert call is None or len(call.operation) <= 256
