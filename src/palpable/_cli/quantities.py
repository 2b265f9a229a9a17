"""Durations and sizes as people read them; `--json` gives the plain numbers."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Return a length of time, with the two largest units that matter.

    Example:
        >>> duration(0.0042), duration(2.5), duration(75), duration(7500), duration(200_000), duration(None)
        ('4 ms', '2.5 s', '1 m 15 s', '2 h 05 m', '2 d 07 h', '')
    """
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {second:02} s"
    hours, minute = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minute:02} m"
    days, hour = divmod(hours, 24)
    return f"{days} d {hour:02} h"


def size(count_bytes: float | None) -> str:
    """Return a number of bytes in decimal units.

    Example:
        >>> size(512), size(20_480), size(1_500_000), size(2.5e9), size(None)
        ('512 B', '20.5 kB', '1.5 MB', '2.5 GB', '')
    """
    if count_bytes is None:
        return ""
    if count_bytes < 1000:
        return f"{count_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count_bytes /= 1000
        if count_bytes < 999.95:
            return f"{count_bytes:.1f} {unit}"
    return f"{count_bytes / 1000:.1f} TB"
