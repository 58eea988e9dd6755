"""The process of a step: KFP's own executor, and for a step that fails one last line that says why.

A traceback is printed only for a failure that nobody expected. On Kubernetes the line also becomes the
container's termination message, so that the pod's status holds it.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from kfp.dsl.executor_main import executor_main

from common.errors import DISK_FULL, UserError, disk_full_message
from orchestration.step import FAILURE

TERMINATION_LOG = Path("/dev/termination-log")  # Kubernetes makes it; elsewhere there is none
MAX_TERMINATION_BYTES = 4096  # of what Kubernetes keeps
MAX_ERROR = 2000  # characters of a sentence


def main() -> int:
    """Run the step that the command line names and return the process's exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--function_to_execute", required=True)
    step = parser.parse_known_args()[0].function_to_execute.replace("_", "-")
    try:
        executor_main()
    except UserError as error:
        sentence = str(error)
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise
        sentence = error.code
    except OSError as error:
        if error.errno in DISK_FULL:
            sentence = disk_full_message(error.filename or "what this step writes", error)
        else:
            sentence = _unexpected(error)
    except Exception as error:
        sentence = _unexpected(error)
    else:
        return 0
    line = FAILURE.format(step=step, sentence=" ".join(sentence.split())[:MAX_ERROR])
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
    if TERMINATION_LOG.exists():
        with suppress(OSError):
            TERMINATION_LOG.write_bytes(line.encode()[:MAX_TERMINATION_BYTES])
    return 1


def _unexpected(error: Exception) -> str:
    """The traceback goes to the log; the sentence is what Python writes below it."""
    traceback.print_exc()
    return "".join(traceback.format_exception_only(error))


if __name__ == "__main__":
    sys.exit(main())
