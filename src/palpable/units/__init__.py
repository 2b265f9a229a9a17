"""What user code holds: tasks, their results and errors, the client, the messenger."""
