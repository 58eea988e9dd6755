"""The last line of a run says what was skipped, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """After pytest's own summary: the number of skipped tests per reason."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of xdist
        return
    skipped = reporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[-1]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        lines = [f"{count} skipped: {reason}" for reason, count in reasons.most_common()]
        reporter.write_line(f"\n{'; '.join(lines)}")
