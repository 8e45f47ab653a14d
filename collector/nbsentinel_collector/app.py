"""The HTTP edge: routes, authorisation, problems."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from nbsentinel import __version__
from nbsentinel_collector import body, enrol, ingest, queries, silence
from nbsentinel_collector.config import CollectorConfig
from nbsentinel_collector.metrics import Metrics
from nbsentinel_collector.problems import ProblemError
from nbsentinel_collector.store import Store

NDJSON = "application/x-ndjson"
ENROL_BODY_LIMIT = 1 << 20
ACROSS_GAP_HEADER = "Nbsentinel-Across-Gap"
"""`1` says that missing events were pruned by the sender; see docs/reference/collector.md."""
_CODES = {404: "not-found", 405: "method-not-allowed"}


def create_app(config: CollectorConfig, store: Store) -> FastAPI:
    """Return the application for a configuration and an open database."""
    metrics, secret = Metrics(), store.secret()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_watch(store, config))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(title="nbsentinel collector", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_problems(app, metrics)
    _add_writing(app, config, store, metrics, secret)
    _add_reading(app, config, store, metrics)
    return app


async def _watch(store: Store, config: CollectorConfig) -> None:
    """Look for silent agents until cancelled; a database that is away is tried again."""
    while True:
        await asyncio.sleep(silence.CHECK_SECONDS)
        with suppress(sa.exc.SQLAlchemyError):
            await run_in_threadpool(silence.check, store, config.silence_seconds)


def _add_problems(app: FastAPI, metrics: Metrics) -> None:
    def refuse(problem: ProblemError) -> Response:
        metrics.refused.labels(problem.code).inc()
        return problem.response()

    async def own(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return refuse(error)

    async def http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refuse(ProblemError(error.status_code, _CODES.get(error.status_code, "http"), str(error.detail), ""))

    async def validation(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return refuse(ProblemError(422, "malformed", "Wrong parameter", f"{where}: {first['msg']}"))

    async def database(_request: Request, error: Exception) -> Response:
        return refuse(ProblemError(503, "unavailable", "Database does not answer", type(error).__name__))

    app.add_exception_handler(ProblemError, own)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(sa.exc.OperationalError, database)


def _content_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise ProblemError(415, "unsupported-type", "Unsupported content type", f"{given[:60]!r}; use {wanted}")


def _add_writing(app: FastAPI, config: CollectorConfig, store: Store, metrics: Metrics, secret: bytes) -> None:
    @app.post("/v1/enroll")
    async def enroll(request: Request) -> dict[str, str]:
        _content_type(request, "application/json")
        parsed = enrol.parse(await body.read(request, most=ENROL_BODY_LIMIT))
        found = await run_in_threadpool(enrol.enrol, store, secret, parsed)
        metrics.enrolled.inc()
        return {"chain_uid": found.chain_uid, "agent_uid": found.agent_uid, "next_token": found.next_token}

    @app.post("/v1/events")
    async def receive(request: Request) -> dict[str, object]:
        _content_type(request, NDJSON)
        data = await body.read(request, most=config.max_body_bytes)
        across = request.headers.get(ACROSS_GAP_HEADER) == "1"
        encoding = request.headers.get("content-encoding", "")

        def work() -> ingest.Outcome:
            decoded = body.decode(data, encoding, most=config.max_decoded_bytes)
            return ingest.ingest(store, body.lines(decoded, most=config.max_lines), across_gap=across)

        began = time.perf_counter()
        outcome = await run_in_threadpool(work)
        metrics.seconds.observe(time.perf_counter() - began)
        metrics.accepted.inc(outcome.accepted)
        metrics.duplicates.inc(outcome.duplicates)
        return {"accepted": outcome.accepted, "duplicates": outcome.duplicates, "heads": outcome.heads}


def _reader(config: CollectorConfig) -> Callable[[Request], None]:
    wanted = f"Bearer {config.read_token}"

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if config.read_token and not hmac.compare_digest(given.encode(), wanted.encode()):
            raise ProblemError(401, "unauthorized", "Not authorised", "present the read token as a bearer token")

    return check


def _add_reading(app: FastAPI, config: CollectorConfig, store: Store, metrics: Metrics) -> None:
    reader = Depends(_reader(config))

    @app.get("/v1/findings", dependencies=[reader])
    def findings(
        after: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        agent: Annotated[str | None, Query(max_length=256)] = None,
        min_severity: Annotated[int, Query(ge=0, le=6)] = 0,
    ) -> dict[str, object]:
        found = queries.findings(store, after=after, limit=limit, agent_uid=agent, min_severity=min_severity)
        return {"findings": found, "next": found[-1]["id"] if found else after}

    @app.get("/v1/agents", dependencies=[reader])
    def agents() -> dict[str, object]:
        return {"agents": queries.agents(store, silence_seconds=config.silence_seconds)}

    @app.get("/v1/events", dependencies=[reader])
    def export(
        chain_uid: Annotated[str | None, Query(max_length=128)] = None,
        after_sequence: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=10_000_000)] = 1_000_000,
    ) -> StreamingResponse:
        found = queries.export(store, chain_uid=chain_uid, after_sequence=after_sequence, limit=limit)
        return StreamingResponse(found, media_type=NDJSON)

    @app.get("/v1/keys", dependencies=[reader])
    def keys() -> dict[str, object]:
        return queries.keys(store)

    @app.get("/v1/heads", dependencies=[reader])
    def heads() -> dict[str, object]:
        return queries.heads(store)

    @app.get("/healthz")
    def health() -> dict[str, str]:
        if not store.is_reachable():
            raise ProblemError(503, "unavailable", "Database does not answer", "")
        return {"status": "ok", "id": config.id, "version": __version__}

    @app.get("/metrics", dependencies=[reader])
    def figures() -> Response:
        return Response(metrics.render(store, config.silence_seconds), media_type="text/plain; version=0.0.4")
