"""Resolve the .in files into lock files with hashes (`make lock`).

torch alone carries no hash and no build tag: which build of the one pinned version is installed (CPU, a CUDA
one, a local wheel) is the machine's choice. What only its CUDA builds need is left out, and comes with them.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
UV = Path(sys.executable).with_name("uv")
OPTIONS = ("--quiet", "--no-header", "--no-annotate", "--generate-hashes", "--python-version", "3.11")
TORCH = re.compile(r"^(torch==[0-9.]+)\S* \\\n(?:    --hash=\S+(?: \\)?\n)+", re.MULTILINE)
CUDA = re.compile(r"^(?:nvidia-|cuda-|triton==)\S* \\\n(?:    --hash=\S+(?: \\)?\n)+", re.MULTILINE)


def lock(name: str, *constraints: str) -> None:
    """Write requirements/<name>.lock from requirements/<name>.in; an extra's holds what it adds and needs."""
    target = HERE / f"{name}.lock"
    subprocess.run(
        [UV, "pip", "compile", *OPTIONS, *constraints, HERE / f"{name}.in", "-o", target], check=True
    )
    text, found = TORCH.subn(r"\1\n", target.read_text())
    if found != (name in ("run", "dev")):
        sys.exit(f"{target} holds {found} pins of torch.")
    target.write_text(CUDA.sub("", text))


EXTRAS = ("ann", "spark")
lock("run")
for extra in EXTRAS:
    lock(extra, "-c", str(HERE / "run.lock"))
lock("dev", *(part for name in ("run", *EXTRAS) for part in ("-c", str(HERE / f"{name}.lock"))))
