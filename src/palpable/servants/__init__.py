"""The long-lived actors: what starts, stops, joins and closes."""
