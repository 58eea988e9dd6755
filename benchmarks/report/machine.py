"""The machine that numbers were measured on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def machine() -> str:
    """Processor, cores, torch's threads, GPU and torch's version in words."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = platform.machine()
    if names:
        processor = f"{names[0]} ({processor}), {len(names)} cores"
    return f"{processor}, {torch.get_num_threads()} threads, {gpu}, torch {torch.__version__}"


def peak_memory() -> float:
    """Peak resident memory of this process in MiB. (`ru_maxrss` would include the parent's.)"""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
