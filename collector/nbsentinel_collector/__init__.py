"""The collector: receives signed events, verifies every one, stores them, and notices who falls silent."""
