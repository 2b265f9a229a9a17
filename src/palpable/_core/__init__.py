"""Decisions without input or output: what becomes of every task, as plain functions of events and time."""
