"""One module per question; each defines `QUESTION`, and runs by itself: `python -m benchmarks --only NAME`."""
