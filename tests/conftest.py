"""Long files of tests come first, and the last line of a run says what was skipped, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a time-out of their own are long: they come first, so that no worker ends with one alone."""

    def seconds(item: pytest.Item) -> float:
        timeout = item.get_closest_marker("timeout")
        return timeout.args[0] if timeout else item.get_closest_marker("integration") is not None

    longest: dict[str, float] = {}
    for item in items:
        path = str(item.path)
        longest[path] = max(longest.get(path, 0), seconds(item))
    items.sort(key=lambda item: -longest[str(item.path)])


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
