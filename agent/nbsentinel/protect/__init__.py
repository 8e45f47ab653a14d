"""Self-protection: the keeper that starts the agent again, and the checks that the agent makes of itself."""
