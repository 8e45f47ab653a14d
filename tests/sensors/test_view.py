"""What all looks at the system share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from nbsentinel.sensors.procfs.view import remote_mounts


def test_looks_are_made_in_several_threads_at_once() -> None:
    """Sensors and detection ask for the remote mounts at the same time, and all get the same answer."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: remote_mounts(), range(20_000)))
    assert len(found) == 1
