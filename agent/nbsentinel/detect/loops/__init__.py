"""Programs that receive commands and execute each by itself: `commands` follows them, the others say what it sees."""
