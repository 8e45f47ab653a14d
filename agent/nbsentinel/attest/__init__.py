"""Evidence that nobody altered, removed or inserted an event: canonical form, keys, the signed chain, verification.

No I/O, and no imports from the rest of the agent but its errors: the agent writes chains with `chain`, the collector
and `nbsentinel verify` check them with `verify`. The format is in docs/reference/attestation.md.
"""
