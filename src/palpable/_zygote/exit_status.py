"""The exit status of a process, in words.

Palpable writes an exit status as `subprocess` does: the exit code, or minus the number of the signal that ended it.
"""

from __future__ import annotations


def name_signal(number: int) -> str:
    """Return the name of a signal: "SIGKILL"; "signal 99" if it has none here.

    Example:
        >>> name_signal(11)
        'SIGSEGV'
    """
    # Imported here: the zygote does without this module's tables of names.
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return f"SIGRTMIN+{number - signal.SIGRTMIN}"
        return f"signal {number}"


def describe_exit(exit_status: int | None) -> str:
    """Return how a process ended, to be read after "the process".

    Example:
        >>> describe_exit(-9), describe_exit(3), describe_exit(None)
        ('was killed by SIGKILL', 'exited with code 3', 'ended in an unknown way')
    """
    if exit_status is None:
        return "ended in an unknown way"
    if exit_status < 0:
        return f"was killed by {name_signal(-exit_status)}"
    return f"exited with code {exit_status}"
