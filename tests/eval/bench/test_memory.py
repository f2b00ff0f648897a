"""Work in a process of its own, and the private memory that work takes."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.eval.bench import machine


@pytest.mark.processes
def test_work_apart_gives_its_result_or_its_error() -> None:
    assert machine.apart(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        machine.apart(int, "many")
    with pytest.raises(MixLMError, match="the process for '_exit' died"):
        machine.apart(os._exit, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_memory_that_is_given_back_counts_too() -> None:
    def work() -> None:
        np.ones(32_000_000, dtype=np.uint8).sum()
        held = [np.ones(8_000_000, dtype=np.uint8) for _ in range(20)]
        np.stack(held).sum()

    assert 150e6 < (machine.private_growth(work) or 0) < 600e6
