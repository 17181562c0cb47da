"""What makes training fast and its start short: programs, their cache, memory, time."""
