"""Palpable beside its peers: one script per question, measured in the same run. See `README.md` for the method."""
