"""Runs the rules through Great Expectations and turns its results into findings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

from validation.data.findings import Finding
from validation.data.policy import DataPolicy
from validation.data.rules import Rule, table_rules
from validation.data.tables import Table

EXAMPLES = 5
EXAMPLE_LENGTH = 40
EXAMPLE_ROWS = 5  # of one value
UNIQUE = (gxe.ExpectColumnValuesToBeUnique, gxe.ExpectCompoundColumnsToBeUnique)
RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": 4 * EXAMPLES}  # values may repeat
# Nothing on disk: the default context leaves a temporary folder for a docs site.
IN_MEMORY = DataContextConfig(
    store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
    progress_bars=ProgressBarsConfig(globally=False),
    analytics_enabled=False,
)


def check_tables(tables: Mapping[str, Table], policy: DataPolicy) -> list[Finding]:
    """Check every table that could be read; findings keep the order of the rules."""
    findings: list[Finding] = []
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)  # no chatter in a step's log; failures come back as findings
    try:
        context = gx.get_context(mode="ephemeral", project_config=IN_MEMORY)
        source = context.data_sources.add_pandas("dataset")
        for table in tables.values():
            findings += table.findings
            wrong_columns = [finding.column for finding in table.findings]
            if "" in wrong_columns:  # the file could not be read
                continue
            rules = table_rules(table.name, table.frame, policy, wrong_columns)
            suite = gx.ExpectationSuite(name=table.name)
            for number, rule in enumerate(rules):
                rule.expectation.meta = {"rule": number}  # results come back in another order
                suite.add_expectation(rule.expectation)
            asset = source.add_dataframe_asset(table.name).add_batch_definition_whole_dataframe("all")
            batch: Any = asset.get_batch({"dataframe": table.frame})
            results = batch.validate(suite, result_format=RESULT_FORMAT).results
            by_rule = {result.expectation_config.meta["rule"]: result for result in results}
            findings += [_finding(table, rule, by_rule[number]) for number, rule in enumerate(rules)]
    finally:
        logger.setLevel(level)
    return findings


def _finding(table: Table, rule: Rule, result: ExpectationValidationResult) -> Finding:
    """Put a result into the words of its rule. A check that raised counts as failed."""
    details = result.result
    info = result.exception_info or {}
    entries = (
        [info] if "raised_exception" in info else [part for part in info.values() if isinstance(part, dict)]
    )
    faults = [str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")]
    ok = bool(result.success) and not faults
    if faults:
        observed = f"could not be checked: {' '.join(faults[0].split())[:200]}"
        broken = f"'{rule.expects}' {observed}"
    elif "unexpected_count" in details:
        count, total = details["unexpected_count"], details["element_count"]
        observed = f"{count:,} of {total:,} rows fail" if count else f"all {total:,} rows pass"
        broken = f"{rule.broken} in {count:,} of {total:,} rows{_examples(details, rule, table.frame)}"
    else:  # a check of a whole table or column
        value = details.get("observed_value")
        missing = ((details.get("details") or {}).get("mismatched") or {}).get("missing")
        if isinstance(value, int):
            observed = f"{value:,}"
        elif missing:
            observed = f"missing: {', '.join(map(str, missing))}"
        else:
            observed = "as expected" if result.success else ", ".join(map(str, value or ["none"]))
        broken = f"{rule.broken} (found {observed})"
    subject = f"Table {table.name}, column {rule.column}" if rule.column else f"Table {table.name}"
    return Finding(
        table=table.name,
        column=rule.column,
        expects=rule.expects,
        ok=ok,
        observed=observed,
        problem="" if ok else f"{subject}: {broken}; {rule.remedy}.",
        severity=rule.severity,
        check=result.expectation_config.type if result.expectation_config else "",
    )


def _examples(details: Mapping[str, Any], rule: Rule, frame: pd.DataFrame) -> str:
    """Where to look: values with the numbers of their rows, counted from 1 as ingest does."""
    values = details.get("partial_unexpected_list") or []
    indices = details.get("partial_unexpected_index_list") or []
    if isinstance(rule.expectation, UNIQUE):  # all rows of the first duplicates, however far apart
        key = getattr(rule.expectation, "column_list", None) or [rule.column]
        doubled = frame[frame.duplicated(key, keep=False)]
        groups = sorted(doubled.groupby(key, sort=False, dropna=False).indices.values(), key=min)[:EXAMPLES]
        indices = [int(doubled.index[row]) for rows in groups for row in rows]
        values = [" ".join(map(str, row)) for row in frame.loc[indices, key].to_numpy()]
    rows_by_value: dict[str, list[int]] = {}  # "" is null
    for value, index in zip(values, indices, strict=False):
        text = "" if pd.isna(value) else str(value)
        text = text if len(text) <= EXAMPLE_LENGTH else f"{text[:EXAMPLE_LENGTH]}..."
        rows_by_value.setdefault(text, []).append(int(index) + 1)
    examples = []
    for text, rows in list(rows_by_value.items())[:EXAMPLES]:
        numbers = ", ".join(map(str, rows[:EXAMPLE_ROWS])) + (", ..." if len(rows) > EXAMPLE_ROWS else "")
        examples.append(f"{f'{text!r} in ' if text else ''}row{'s' if len(rows) > 1 else ''} {numbers}")
    return f" (such as {'; '.join(examples)})" if examples else ""
