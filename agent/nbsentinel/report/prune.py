"""How a run of pruned events is stated, so that a verifier can follow the chain across the hole."""

from __future__ import annotations

from nbsentinel.attest import canonical
from nbsentinel.attest.attestation import parts, signature_sha256
from nbsentinel.report.spool import Pruned


def describe(run: Pruned) -> dict[str, object]:
    """Return one member of a drop statement's `ranges` for a run of neighbouring events."""
    first, last = parts(canonical.decode(run.first_line)), parts(canonical.decode(run.last_line))
    return {
        "first": run.first,
        "last": run.last,
        "prev_fingerprint": first.prev_fingerprint or "",
        "last_fingerprint": last.fingerprint,
        "last_signature_sha256": signature_sha256(last.signature),
        "counts": {str(severity): count for severity, count in sorted(run.severities.items())},
    }
