"""The agent's own socket: status and findings for people and for the Jupyter extension on this machine."""
