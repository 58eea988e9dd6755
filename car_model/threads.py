"""How many threads torch may use on a CPU."""

from __future__ import annotations

import os

import torch


def limit_threads(threads: int = 0) -> None:
    """Let torch use `threads`; 0 means half of the cores this process may use.

    The operations here are short, and every one waits for its slowest thread: where a core is busy with
    something else, a thread on each core costs far more than the second half of them brings
    (docs/decisions.md).
    """
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // 2))
