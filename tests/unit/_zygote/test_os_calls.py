"""What is written to reserved room in the environment is the environment."""

from __future__ import annotations

import os
import subprocess

import pytest

from palpable._zygote.os_calls import RESERVED_BYTES, reserve_variable, strcpy


@pytest.mark.parametrize("value", [b"", b"short", b"x" * RESERVED_BYTES])
def test_a_reserved_variable_can_be_overwritten(value: bytes) -> None:
    name = b"PALPABLE_RESERVED_IN_A_TEST"
    try:
        strcpy(reserve_variable(name), value)
        os.environb._data[name] = value  # type: ignore[attr-defined]
        told = subprocess.run(["printenv", name.decode()], capture_output=True, timeout=10)
        assert told.stdout == value + b"\n"
    finally:
        del os.environb[name]
    assert subprocess.run(["printenv", name.decode()], timeout=10, stdout=subprocess.DEVNULL).returncode == 1
