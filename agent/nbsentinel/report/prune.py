"""How a run of pruned events is stated, so that a verifier can follow the chain across the hole."""

from __future__ import annotations

from nbsentinel.attest import canonical
from nbsentinel.attest.attestation import parts, signature_sha256
from nbsentinel.attest.integrity import IntegrityError
from nbsentinel.events import Severity
from nbsentinel.report.spool import Pruned


def describe(run: Pruned) -> dict[str, object]:
    """Return one member of a drop statement's `ranges` for a run of neighbouring events.

    Where somebody damaged an event at an end of the run, the fingerprints are left out: what is known is stated, and
    excuses nothing.
    """
    counts = {str(severity): count for severity, count in sorted(run.severities.items())}
    known: dict[str, object] = {"first": run.first, "last": run.last, "counts": counts}
    try:
        first, last = parts(canonical.decode(run.first_line)), parts(canonical.decode(run.last_line))
        signature = signature_sha256(last.signature)
    except (canonical.CanonicalError, IntegrityError):
        return known
    return {
        **known,
        "prev_fingerprint": first.prev_fingerprint or "",
        "last_fingerprint": last.fingerprint,
        "last_signature_sha256": signature,
    }


def describe_other(run: Pruned) -> dict[str, object]:
    """Return one member of a drop statement's `other_chains`: a run of an earlier session's chain.

    It stands apart from `ranges`, which verifiers take for the stating chain's own.
    """
    return {"chain_uid": run.chain, **describe(run)}


def word(severity: int) -> str:
    """Return the name of a severity."""
    return Severity(severity).name.lower() if severity in set(Severity) else str(severity)
