"""A client's line to its server: found, opened, proven, shared by all threads of a process."""
