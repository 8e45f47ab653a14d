"""What a finding is about: the evidence that tells it apart from others of its rule. Pure."""

from __future__ import annotations

from nbsentinel.events import FileOperation, Finding, TamperKind

_ABOUT = ("TamperKind", "Target", "Service", "Operation", "AuditEvent", "AuditPath", "AuditAddress")
_CHANGED = TamperKind.FILES_CHANGED.value


def salient(finding: Finding) -> str:
    """Return what must differ for a finding to be another step of an incident.

    The peer; without one what it was done to (a kind of credential, a file that was changed, an API, what was meddled
    with), or the file that runs.
    """
    if finding.connection is not None:
        return str(finding.connection.remote)
    if "CorrelatedRules" in finding.fields:
        return finding.process.exe or ""
    # Where nobody is known to have done it, what ran then is all that tells two acts apart.
    nobody = finding.fields.get("CandidateRoot", "")
    if "CredentialKind" in finding.fields:
        changed = finding.fields.get("FileOperation") != FileOperation.READ.value
        # Many files of one kind are one piece of news; each file that was changed is one.
        touched = [finding.fields["CredentialKind"], finding.fields.get("TargetFilename", "") if changed else ""]
        return " ".join((*touched, nobody))
    names = [*_ABOUT, "CandidateRoot"]
    if finding.fields.get("TamperKind") == _CHANGED:
        names.append("Detail")  # another content is another finding
    meddled = [finding.fields[name] for name in names if name in finding.fields]
    return " ".join(meddled) or finding.process.exe or ""


def evidence_of(finding: Finding) -> str:
    """Return the evidence in the words that a step of an incident shows."""
    fields = finding.fields
    if finding.connection is not None:
        return f"peer {finding.connection.remote}"
    if "CredentialKind" in fields:
        parts = [fields.get("FileOperation", ""), fields.get("TargetFilename", ""), f"({fields['CredentialKind']})"]
        return " ".join(part for part in parts if part)
    told = [fields[name] for name in _ABOUT if name in fields]
    if told:
        return " ".join(told)
    if "CorrelatedRules" in fields:
        return f"after {fields['CorrelatedRules']}"
    return finding.process.exe or finding.process.name
