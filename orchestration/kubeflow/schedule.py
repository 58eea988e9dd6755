"""Recurring runs: a pipeline that runs at every time of a cron schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import Client


@dataclass(frozen=True)
class Schedule:
    """When a pipeline runs: one run at a time, and missed times are not made up for.

    Attributes:
        name: of the recurring run; one of the same name in the experiment is replaced.
        cron: six fields, seconds first, such as "0 0 3 * * *": every night at three (UTC).
    """

    name: str
    cron: str

    def replace(
        self,
        client: Client,
        experiment: str,
        package: Path,
        arguments: Mapping[str, Any],
        service_account: str,
    ) -> str:
        """Create the recurring run, delete those it replaces, and return its id.

        The new one is created first: a command killed in between leaves two, and running it again one.

        Args:
            experiment: id of the experiment.
            package: the compiled pipeline.
        """
        previous, page = [], ""
        while True:
            answer = client.list_recurring_runs(page_token=page, page_size=100, experiment_id=experiment)
            runs = answer.recurring_runs or []
            previous += [run.recurring_run_id for run in runs if run.display_name == self.name]
            page = answer.next_page_token or ""
            if not page:
                break
        recurring_run = client.create_recurring_run(
            experiment,
            self.name,
            cron_expression=self.cron,
            max_concurrency=1,
            no_catchup=True,
            params=dict(arguments),
            pipeline_package_path=str(package),
            service_account=service_account or None,
        )
        for run_id in previous:
            client.delete_recurring_run(run_id)
        return str(recurring_run.recurring_run_id)
