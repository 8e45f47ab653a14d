"""The database: chains with their verification state, events as signed bytes, tokens, settings."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event as sa_event
from sqlalchemy.engine import Connection, Engine

metadata = sa.MetaData()

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("chain_uid", sa.String(128), nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("class_uid", sa.Integer, nullable=False),
    sa.Column("severity_id", sa.Integer, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("agent_uid", sa.String(256), nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("line", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("chain_uid", "sequence"),
    sa.Index("events_class", "class_uid", "id"),
)
chains = sa.Table(
    "chains",
    metadata,
    sa.Column("chain_uid", sa.String(128), primary_key=True),
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("agent_uid", sa.String(256), nullable=False, index=True),
    sa.Column("attested", sa.String(16), nullable=False),
    sa.Column("genesis_key", sa.Text, nullable=False),
    sa.Column("keys", sa.Text, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("enrolled_at", sa.BigInteger, nullable=False),
    sa.Column("last_seen", sa.BigInteger, nullable=False),
    sa.Column("ended", sa.Boolean, nullable=False),
    sa.Column("surface", sa.Text, nullable=False),
    sa.Column("heartbeat", sa.Text, nullable=False),
)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("agent_uid", sa.String(256)),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("used_for", sa.String(64)),
    sa.Column("note", sa.Text, nullable=False),
)
raised = sa.Table(
    "raised",
    metadata,
    sa.Column("key", sa.String(512), primary_key=True),
    sa.Column("event_id", sa.BigInteger, nullable=False),
)
settings = sa.Table(
    "settings",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # SQLAlchemy begins transactions; the driver must not begin its own, weaker ones.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=15000")
    cursor.close()


class Store:
    """Access to the database; safe to use from several threads and processes.

    Args:
        url: SQLAlchemy URL.
    """

    def __init__(self, url: str) -> None:
        self.engine: Engine = sa.create_engine(url, pool_pre_ping=True)
        if self.engine.dialect.name == "sqlite":
            sa_event.listen(self.engine, "connect", _prepare_sqlite)
        metadata.create_all(self.engine)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection for reading."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that nobody else can write beside; commits, or rolls back on an error."""
        with self.engine.connect() as connection:
            if self.engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def secret(self) -> bytes:
        """Return this collector's secret, made at first use; it never leaves the database."""
        with self.write() as connection:
            found = connection.scalar(sa.select(settings.c.value).where(settings.c.name == "secret"))
            if found is None:
                found = secrets.token_hex(32)
                connection.execute(settings.insert().values(name="secret", value=found))
        return bytes.fromhex(found)

    def is_reachable(self) -> bool:
        """Return whether the database answers."""
        try:
            with self.read() as connection:
                connection.execute(sa.select(sa.literal(1)))
        except sa.exc.SQLAlchemyError:
            return False
        return True
