"""The MITRE ATT&CK techniques that our rules name, with their tactics (enterprise matrix, version 17)."""

from __future__ import annotations

from nbsentinel.events import Technique

_TACTICS = {
    "execution": ("TA0002", "Execution"),
    "persistence": ("TA0003", "Persistence"),
    "privilege-escalation": ("TA0004", "Privilege Escalation"),
    "stealth": ("TA0005", "Stealth"),
    "defense-evasion": ("TA0005", "Defense Evasion"),
    "credential-access": ("TA0006", "Credential Access"),
    "discovery": ("TA0007", "Discovery"),
    "lateral-movement": ("TA0008", "Lateral Movement"),
    "collection": ("TA0009", "Collection"),
    "exfiltration": ("TA0010", "Exfiltration"),
    "command-and-control": ("TA0011", "Command and Control"),
    "impact": ("TA0040", "Impact"),
    "resource-development": ("TA0042", "Resource Development"),
    "reconnaissance": ("TA0043", "Reconnaissance"),
    "initial-access": ("TA0001", "Initial Access"),
}
_TECHNIQUES = {
    "T1059": ("Command and Scripting Interpreter", "execution"),
    "T1059.004": ("Unix Shell", "execution"),
    "T1059.006": ("Python", "execution"),
    "T1071": ("Application Layer Protocol", "command-and-control"),
    "T1090": ("Proxy", "command-and-control"),
    "T1095": ("Non-Application Layer Protocol", "command-and-control"),
}


def techniques(tags: tuple[str, ...]) -> tuple[Technique, ...]:
    """Return the techniques among a rule's tags (`attack.t1059.004`), with the tactic that the rule names or ours.

    A technique that is not in the table keeps its id as its name, and takes the rule's first tactic.
    """
    named = [tag.removeprefix("attack.") for tag in tags if tag.startswith("attack.")]
    tactics = [_TACTICS[name.replace("_", "-")] for name in named if name.replace("_", "-") in _TACTICS]
    found = []
    for name in named:
        uid = name.upper()
        if not (uid[:1] == "T" and uid[1:5].isdigit()):
            continue
        title, tactic = _TECHNIQUES.get(uid, (uid, ""))
        tactic_uid, tactic_name = _TACTICS.get(tactic) or (tactics[0] if tactics else ("", ""))
        found.append(Technique(uid=uid, name=title, tactic_uid=tactic_uid, tactic=tactic_name))
    return tuple(found)
