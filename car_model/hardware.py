"""What a processor can do."""

from __future__ import annotations


def native_bf16(device: str = "cpu") -> bool:
    """Whether a device multiplies bfloat16 in hardware.

    A CPU without such instructions emulates them, many times slower than its float32.
    """
    import torch  # noqa: PLC0415 - seconds to import

    if device != "cpu":
        return True
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
