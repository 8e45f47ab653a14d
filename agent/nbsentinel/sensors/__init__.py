"""Sensors: each turns one source into observations."""
