"""What torch computes with: CPU threads and number formats.

The command line imports this module, and torch takes seconds to import: so functions import it.
"""

from __future__ import annotations

import os


def limit_threads(threads: int = 0) -> None:
    """Let torch use `threads`; 0 means half of the cores this process may use.

    The operations here are short, and every one waits for its slowest thread: where a core is busy with
    something else, a thread on each core costs far more than the second half of them brings
    (docs/decisions.md).
    """
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // 2))


def native_bf16(device: str = "cpu") -> bool:
    """Whether a device multiplies bfloat16 in hardware.

    A CPU without such instructions emulates them, many times slower than its float32.
    """
    import torch  # noqa: PLC0415

    if device != "cpu":
        return True
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
