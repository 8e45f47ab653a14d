"""What the catalogue's rules tell of and what they leave alone, as fields: for each rule an attack and its look-alike.

A row is (rule, category, attack, look-alike). A look-alike does not meet its rule, nor any other of medium or above.
"""

from __future__ import annotations

from support.behaviours.abuse import ABUSE
from support.behaviours.acts import Fields, Row, ran
from support.behaviours.cloud import CLOUD
from support.behaviours.credentials import CREDENTIALS, METADATA
from support.behaviours.execution import EXECUTION
from support.behaviours.ordinary import ORDINARY
from support.behaviours.persistence import PERSISTENCE
from support.behaviours.sequences import SEQUENCES, Step

__all__ = ["ORDINARY", "ROWS", "SEQUENCES", "Fields", "Row", "Step", "ran"]

ROWS: list[Row] = [*CREDENTIALS, *METADATA, *PERSISTENCE, *EXECUTION, *ABUSE, *CLOUD]
