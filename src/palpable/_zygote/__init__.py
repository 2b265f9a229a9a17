"""Processes: the zygote that forks them, the task process that runs a task, and the server's handle on both."""
