"""Recurring runs: a pipeline that runs at every time of a cron schedule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp import Client


def replace_recurring_run(
    client: Client,
    *,
    experiment_id: str,
    name: str,
    cron: str,
    package: Path,
    arguments: Mapping[str, Any],
    service_account: str,
) -> str:
    """Create a recurring run, delete the experiment's former ones of that name, and return the new id.

    The new one is created first: a command killed in between leaves two, and running it again leaves one.

    Args:
        package: the compiled pipeline.
    """
    former_ids, page = [], ""
    while True:
        answer = client.list_recurring_runs(page_token=page, page_size=100, experiment_id=experiment_id)
        runs = answer.recurring_runs or []
        former_ids += [run.recurring_run_id for run in runs if run.display_name == name]
        page = answer.next_page_token or ""
        if not page:
            break
    recurring_run = client.create_recurring_run(
        experiment_id,
        name,
        cron_expression=cron,
        max_concurrency=1,
        no_catchup=True,
        params=dict(arguments),
        pipeline_package_path=str(package),
        service_account=service_account or None,
    )
    for run_id in former_ids:
        client.delete_recurring_run(run_id)
    return str(recurring_run.recurring_run_id)
