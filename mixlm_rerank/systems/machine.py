"""The machine on which an evaluation ran, and its peak memory."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["conditions", "machine", "peak_memory", "reset_peak_memory"]

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def machine() -> dict[str, str]:
    """Processor, cores, memory, accelerator, versions: name -> value."""
    found = {
        "processor": _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    memory = _field(Path("/proc/meminfo"), "MemTotal")
    if memory:
        found["memory"] = f"{int(memory.split()[0]) / 1024**2:.0f} GiB"
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def conditions() -> list[str]:
    """Conditions under which a timing holds: processor, cores, threads, accelerator, versions."""
    return [f"{name} {value}" for name, value in machine().items()] + [f"mixlm-rerank {version('mixlm-rerank')}"]


def reset_peak_memory() -> None:
    """Restart the measurement of peak memory (Linux only); elsewhere the peak stays that of the whole process."""
    try:
        REFERENCES.write_text("5")
    except OSError:
        pass


def peak_memory() -> int | None:
    """Most resident memory of this process since :func:`reset_peak_memory`, in bytes; None if unknown."""
    peak = _field(STATUS, "VmHWM")
    return int(peak.split()[0]) * 1024 if peak else None


def _field(path: Path, name: str) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)
