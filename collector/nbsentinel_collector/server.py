"""Running the collector as a program."""

from __future__ import annotations

import uvicorn

from nbsentinel_collector.app import create_app
from nbsentinel_collector.config import CollectorConfig
from nbsentinel_collector.store import Store


def serve(config: CollectorConfig) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    store = Store(config.database)
    try:
        uvicorn.run(
            create_app(config, store),
            host=config.host,
            port=config.port,
            ssl_certfile=config.tls_certificate or None,
            ssl_keyfile=config.tls_key or None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
    finally:
        store.close()
