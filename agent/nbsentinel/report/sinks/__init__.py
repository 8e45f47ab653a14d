"""Where recorded events go: each sink reads the spool in order from a cursor of its own."""
