"""Durability: the tasks of a server in an embedded database, behind one interface."""
