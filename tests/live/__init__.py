"""What the tests with real processes share: an agent, an account without rights, cages for cases, a remote operator."""
