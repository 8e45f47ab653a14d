"""What runs inside a Python kernel. Standard library only, Python 3.7 syntax; empty, because every kernel loads it."""
