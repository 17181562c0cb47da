"""Running training: dispatch, the cache of compiled programs, memory, signals, processes and timing."""
