"""`car ask` can send whatever the API takes."""

from __future__ import annotations

import inspect

import pytest
from typer.testing import CliRunner

from car_model.recommender.request import Request
from serving.cli import app, ask

LOCAL = {"raw", "channel", "serving"}  # of the command alone


def test_every_field_of_a_request_is_an_option() -> None:
    assert set(inspect.signature(ask).parameters) - LOCAL == set(Request.model_fields)


@pytest.mark.parametrize("field", ["thinking", "exclude", "candidates", "explain", "rank_by"])
def test_help_is_that_of_the_api(field: str) -> None:
    shown = CliRunner().invoke(app, ["ask", "--help"], env={"COLUMNS": "400"}).output
    assert (Request.model_fields[field].description or "none") in " ".join(shown.split())
