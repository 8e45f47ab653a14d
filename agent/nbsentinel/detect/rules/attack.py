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
    "T1003": ("OS Credential Dumping", "credential-access"),
    "T1003.007": ("Proc Filesystem", "credential-access"),
    "T1014": ("Rootkit", "defense-evasion"),
    "T1016": ("System Network Configuration Discovery", "discovery"),
    "T1027": ("Obfuscated Files or Information", "defense-evasion"),
    "T1033": ("System Owner/User Discovery", "discovery"),
    "T1036": ("Masquerading", "defense-evasion"),
    "T1036.004": ("Masquerade Task or Service", "defense-evasion"),
    "T1036.005": ("Match Legitimate Resource Name or Location", "defense-evasion"),
    "T1041": ("Exfiltration Over C2 Channel", "exfiltration"),
    "T1046": ("Network Service Discovery", "discovery"),
    "T1048": ("Exfiltration Over Alternative Protocol", "exfiltration"),
    "T1053.003": ("Cron", "persistence"),
    "T1053.006": ("Systemd Timers", "persistence"),
    "T1055": ("Process Injection", "defense-evasion"),
    "T1055.008": ("Ptrace System Calls", "defense-evasion"),
    "T1055.009": ("Proc Memory", "defense-evasion"),
    "T1057": ("Process Discovery", "discovery"),
    "T1059": ("Command and Scripting Interpreter", "execution"),
    "T1059.004": ("Unix Shell", "execution"),
    "T1059.006": ("Python", "execution"),
    "T1059.007": ("JavaScript", "execution"),
    "T1059.011": ("Lua", "execution"),
    "T1068": ("Exploitation for Privilege Escalation", "privilege-escalation"),
    "T1069.003": ("Cloud Groups", "discovery"),
    "T1070": ("Indicator Removal", "defense-evasion"),
    "T1070.002": ("Clear Linux or Mac System Logs", "defense-evasion"),
    "T1070.003": ("Clear Command History", "defense-evasion"),
    "T1070.004": ("File Deletion", "defense-evasion"),
    "T1070.006": ("Timestomp", "defense-evasion"),
    "T1071": ("Application Layer Protocol", "command-and-control"),
    "T1074.001": ("Local Data Staging", "collection"),
    "T1078.004": ("Cloud Accounts", "privilege-escalation"),
    "T1082": ("System Information Discovery", "discovery"),
    "T1083": ("File and Directory Discovery", "discovery"),
    "T1087": ("Account Discovery", "discovery"),
    "T1087.004": ("Cloud Account", "discovery"),
    "T1090": ("Proxy", "command-and-control"),
    "T1095": ("Non-Application Layer Protocol", "command-and-control"),
    "T1098": ("Account Manipulation", "persistence"),
    "T1098.001": ("Additional Cloud Credentials", "persistence"),
    "T1098.003": ("Additional Cloud Roles", "persistence"),
    "T1098.004": ("SSH Authorized Keys", "persistence"),
    "T1102": ("Web Service", "command-and-control"),
    "T1105": ("Ingress Tool Transfer", "command-and-control"),
    "T1106": ("Native API", "execution"),
    "T1119": ("Automated Collection", "collection"),
    "T1136.003": ("Cloud Account", "persistence"),
    "T1140": ("Deobfuscate/Decode Files or Information", "defense-evasion"),
    "T1204.002": ("Malicious File", "execution"),
    "T1485": ("Data Destruction", "impact"),
    "T1486": ("Data Encrypted for Impact", "impact"),
    "T1496": ("Resource Hijacking", "impact"),
    "T1496.001": ("Compute Hijacking", "impact"),
    "T1526": ("Cloud Service Discovery", "discovery"),
    "T1528": ("Steal Application Access Token", "credential-access"),
    "T1530": ("Data from Cloud Storage", "collection"),
    "T1537": ("Transfer Data to Cloud Account", "exfiltration"),
    "T1543.002": ("Systemd Service", "persistence"),
    "T1546": ("Event Triggered Execution", "persistence"),
    "T1546.004": ("Unix Shell Configuration Modification", "persistence"),
    "T1546.018": ("Python Startup Hooks", "persistence"),
    "T1547.013": ("XDG Autostart Entries", "persistence"),
    "T1550.001": ("Application Access Token", "lateral-movement"),
    "T1552": ("Unsecured Credentials", "credential-access"),
    "T1552.001": ("Credentials In Files", "credential-access"),
    "T1552.004": ("Private Keys", "credential-access"),
    "T1552.005": ("Cloud Instance Metadata API", "credential-access"),
    "T1555.006": ("Cloud Secrets Management Stores", "credential-access"),
    "T1560.001": ("Archive via Utility", "collection"),
    "T1562": ("Impair Defenses", "defense-evasion"),
    "T1562.001": ("Disable or Modify Tools", "defense-evasion"),
    "T1562.008": ("Disable or Modify Cloud Logs", "defense-evasion"),
    "T1564": ("Hide Artifacts", "defense-evasion"),
    "T1564.001": ("Hidden Files and Directories", "defense-evasion"),
    "T1567": ("Exfiltration Over Web Service", "exfiltration"),
    "T1567.002": ("Exfiltration to Cloud Storage", "exfiltration"),
    "T1567.003": ("Exfiltration to Text Storage Sites", "exfiltration"),
    "T1567.004": ("Exfiltration Over Webhook", "exfiltration"),
    "T1572": ("Protocol Tunneling", "command-and-control"),
    "T1574": ("Hijack Execution Flow", "persistence"),
    "T1574.006": ("Dynamic Linker Hijacking", "persistence"),
    "T1580": ("Cloud Infrastructure Discovery", "discovery"),
    "T1609": ("Container Administration Command", "execution"),
    "T1610": ("Deploy Container", "execution"),
    "T1611": ("Escape to Host", "privilege-escalation"),
    "T1619": ("Cloud Storage Object Discovery", "discovery"),
    "T1620": ("Reflective Code Loading", "defense-evasion"),
    "T1648": ("Serverless Execution", "execution"),
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
