"""Bytes and messages: what crosses a process boundary, and how it is framed, proven and pickled."""
