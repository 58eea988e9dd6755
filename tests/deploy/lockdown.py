"""Runs a command as a container on a cluster would: user 10001, no capabilities, one writable folder.

The kernel's own namespaces do it, so it needs no container engine; where they are forbidden, tests say so.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

USER = "10001"
UNSHARE = (
    "unshare",
    "--user",
    "--mount",
    f"--map-user={USER}",
    f"--map-group={USER}",
    "--keep-caps",
    "bash",
    "-c",
)
# Every mount becomes read-only but the one folder; flags that a parent namespace has locked are repeated.
SCRIPT = r"""
set -eu
place=$1; shift
mount --make-rprivate /
mount --bind "$place" "$place"
awk '{print $5, $6}' /proc/self/mountinfo | while read -r at flags; do
  case "$at" in "$place"|/proc|/proc/*) continue;; esac
  mount -o "remount,bind,ro,${flags#r[wo],}" "$at" || mount -o remount,bind,ro "$at" || true
done 2>/dev/null
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""
PROVE = """
id -u; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status
for place in / /tmp /dev/shm "$HOME" "$2"; do touch "$place/$$.probe" 2>/dev/null && echo "wrote $place"; done
touch "$1/probe" && rm "$1/probe" && echo "wrote the folder"
"""


def locked_down(folder: Path) -> list[str]:
    """What a command is to be prefixed with, once it was seen to hold; the test is skipped otherwise."""
    prefix = [*UNSHARE, SCRIPT, "locked-down", str(folder)]
    proof = [*prefix, "bash", "-c", PROVE, "prove", str(folder), str(Path(__file__).parents[2])]
    try:
        result = subprocess.run(proof, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"There is no {error.filename} here.")
    if result.returncode and "unshare" in result.stderr:
        pytest.skip(f"Namespaces are forbidden here: {result.stderr.strip()}")
    expected = [USER, "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "wrote the folder"]
    assert result.stdout.splitlines() == expected, result
    return prefix
