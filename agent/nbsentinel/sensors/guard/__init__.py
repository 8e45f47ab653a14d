"""The guard sensor: what the system-call guard tells of guarded processes, and the care for its holder."""
