"""What a task does: objects with a `run(messenger)`."""
