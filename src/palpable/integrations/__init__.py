"""Palpable behind the interfaces of others."""
