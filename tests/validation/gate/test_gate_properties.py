"""Losing or spoiling evidence can never turn a no into a yes."""

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.validation.gate_evidence import (
    GARBAGE,
    UNMEASURED,
    good_evaluation,
    paths,
    put,
    remove,
    say_unmeasured,
)
from validation.gate.gate import EVIDENCE, evaluate_gate
from validation.gate.policy import load_policy

POLICY = load_policy()
METRICS = sorted({condition.metric for condition in POLICY.conditions})
NUMBERS = st.one_of(st.floats(-1, 1), st.floats(0, 200), st.just(0.0))


@st.composite
def evaluations(draw):
    """Evidence around the bounds: with and without champion, numbers moved, parts missing."""
    evaluation = good_evaluation(draw(st.sampled_from(["c" * 64, None])))
    say_unmeasured(evaluation, draw(st.lists(st.sampled_from(list(UNMEASURED)), unique=True)))
    for path in draw(st.lists(st.sampled_from(METRICS), max_size=4)):
        put(evaluation, path, draw(NUMBERS))
    for path in draw(st.lists(st.sampled_from(paths(evaluation)), max_size=2)):
        remove(evaluation, path)
    return evaluation


def verdicts(evaluation, bootstrap):
    """What the policy and the champion say; contradictions may go with the evidence that holds them."""
    results = [
        each for each in evaluate_gate(evaluation, POLICY, bootstrap).conditions if each.name != EVIDENCE
    ]
    blessed = not any(each.verdict == "fail" and each.severity == "block" for each in results)
    return blessed, {each.name: each.verdict for each in results}


def assert_no_gain(before, after):
    assert before[0] or not after[0]
    gained = {name for name, verdict in after[1].items() if verdict != "fail" and before[1][name] == "fail"}
    assert not gained


@settings(deadline=None)
@given(evaluations(), st.booleans(), st.data())
def test_removing_evidence_gains_nothing(evaluation, bootstrap, data):
    smaller = copy.deepcopy(evaluation)
    for path in data.draw(st.lists(st.sampled_from([*METRICS, *paths(evaluation)]), min_size=1, max_size=5)):
        remove(smaller, path)
    assert_no_gain(verdicts(evaluation, bootstrap), verdicts(smaller, bootstrap))


@settings(deadline=None, max_examples=5)  # each tries every part
@given(evaluations(), st.booleans())
def test_removing_any_single_part_gains_nothing(evaluation, bootstrap):
    before = verdicts(evaluation, bootstrap)
    for path in paths(evaluation):
        smaller = copy.deepcopy(evaluation)
        remove(smaller, path)
        assert_no_gain(before, verdicts(smaller, bootstrap))


@settings(deadline=None)
@given(evaluations(), st.booleans(), st.data(), GARBAGE)
def test_garbage_gains_nothing(evaluation, bootstrap, data, garbage):
    spoiled = copy.deepcopy(evaluation)
    # a null champion is a statement, not garbage: it is what evaluate says where production is empty; so is
    # the reason why there was nothing to measure
    stated = [path for path in paths(evaluation) if path[0] == "not_measured"]
    places = [
        path for path in [*METRICS, *paths(evaluation)] if path not in [*stated, ("champion", "release")]
    ]
    path = data.draw(st.sampled_from(places))
    remove(spoiled, path)
    parent = spoiled
    for key in path[:-1]:
        parent = parent.get(key) if isinstance(parent, dict) else None
    if isinstance(parent, dict):
        parent[path[-1]] = garbage
    assert_no_gain(verdicts(evaluation, bootstrap), verdicts(spoiled, bootstrap))


@settings(deadline=None)
@given(evaluations(), st.text(min_size=1), GARBAGE, st.booleans())
def test_unknown_additions_change_nothing(evaluation, key, garbage, bootstrap):
    before = verdicts(evaluation, bootstrap)
    evaluation.setdefault(key, garbage)
    if key not in {path[0] for path in [*METRICS, ("champion",), ("not_measured",)]}:
        assert verdicts(evaluation, bootstrap) == before


@settings(deadline=None)
@given(evaluations())
def test_asking_for_bootstrap_changes_nothing_where_a_champion_is_named(evaluation):
    put(evaluation, ("champion", "release"), "c" * 64)
    assert verdicts(evaluation, True) == verdicts(evaluation, False)


@settings(deadline=None)
@given(evaluations(), st.booleans(), st.data())
def test_nothing_passes_that_was_not_measured(evaluation, bootstrap, data):
    for path in data.draw(st.lists(st.sampled_from([*METRICS, *paths(evaluation)]), max_size=3)):
        remove(evaluation, path)
    for result in evaluate_gate(evaluation, POLICY, bootstrap).conditions:
        value = evaluation
        for key in result.metric.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if result.verdict == "pass":
            assert result.value is not None and result.value == value
        if result.verdict in ("waived", "not applicable"):
            assert result.value is None
        if result.verdict == "not applicable":
            assert any(f"{result.metric}.".startswith(f"{part}.") for part in evaluation["not_measured"])
