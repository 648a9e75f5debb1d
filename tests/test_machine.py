"""Limits of the machine, and watching memory."""

import time
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.machine import Machine, MemoryWatch, core_count


def test_auto_follows_the_machine_and_numbers_are_taken() -> None:
    assert Machine().worker_count() == core_count()
    assert Machine(workers=3, max_memory_gb=2).worker_count() == 3
    assert Machine(max_memory_gb=2).memory_bytes() == 2 * 1024**3
    assert Machine(cache="there").kernels == Path("there/kernels")
    with pytest.raises(ValidationError):
        Machine(device="tpu")


def test_the_watch_sees_a_peak_that_has_passed() -> None:
    with MemoryWatch(every_seconds=0.02) as memory:
        before = memory.peak_mb
        block = np.ones(200 * 2**17)  # 200 MiB
        time.sleep(0.2)
        del block
    assert memory.peak_mb - before > 150
