"""Sigma rules: compiled with pySigma when they are written, matched without it when they are used."""
