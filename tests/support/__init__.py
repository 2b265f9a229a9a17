"""What several tests use: waiting for facts, watching processes, small functions for tasks to run."""
