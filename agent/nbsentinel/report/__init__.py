"""From findings to evidence that leaves: OCSF mapping, sealing, the durable spool, sinks."""
