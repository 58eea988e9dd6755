import json

import pytest

from car_model.evidence.base import EvidenceError
from car_model.evidence.evaluation import Evaluation
from car_model.evidence.verdict import Verdict
from tests.validation.gate_evidence import UNMEASURED, good_evaluation, paths, put, remove, say_unmeasured
from validation.gate.contradictions import contradictions
from validation.gate.gate import CHAMPION, EVIDENCE, evaluate_gate
from validation.gate.policy import load_policy, parse_policy

POLICY = load_policy()


def result(verdict, name):
    return next(item for item in verdict.conditions if item.name == name)


def test_a_good_challenger_passes_every_condition():
    verdict = evaluate_gate(good_evaluation(), POLICY)
    assert verdict.blessed
    assert {item.verdict for item in verdict.conditions} == {"pass"}
    assert len(verdict.conditions) == len(POLICY.conditions) + 2
    assert verdict.champion == "c" * 64
    assert (verdict.policy, verdict.release, verdict.holdout) == (POLICY.digest, "e" * 64, "d" * 64)
    assert (
        verdict.summary()
        == "Passed the gate, compared with release cccccccccccc: no blocking condition failed."
    )


def test_a_challenger_equal_to_the_champion_passes():
    evaluation = good_evaluation()
    zero = {"difference": 0.0, "low": 0.0, "high": 0.0, "relative": 0.0, "relative_low": 0.0}
    evaluation["paired"]["champion"]["ndcg@10"] = zero
    compared = evaluation["champion"]["models"]
    compared["champion"]["ndcg@10"] = compared["challenger"]["ndcg@10"]
    assert evaluate_gate(evaluation, POLICY).blessed


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("there are enough users", ("holdout", "users"), 199),
        ("there are enough hits", ("holdout", "hits"), 19),
        ("enough users are compared", ("champion", "users"), 199),
        ("beats popularity", ("paired", "popularity", "ndcg@10", "low"), 0.0),
        ("beats popularity", ("paired", "popularity", "ndcg@10", "low"), -0.001),
        ("not worse than the champion", ("paired", "champion", "ndcg@10", "high"), -1e-6),
        ("loss against the champion is bounded", ("paired", "champion", "ndcg@10", "relative_low"), -0.21),
        ("semantic IDs tell items apart", ("codebook", "collision_rate"), 0.51),
        ("codes are in use", ("codebook", "usage_min"), 0.49),
        ("codes are used evenly", ("codebook", "perplexity_min_share"), 0.1),
        ("semantic IDs stay", ("codebook", "churn", "unasked"), 0.51),
        ("cold items are not ranked worse than by chance", ("cold", "ahead", "high"), 0.49),
        ("semantic IDs say what items are", ("codebook", "unexplained"), 0.91),
        ("most users are compared", ("champion", "users_share"), 0.49),
        ("the number of interactions is plausible", ("drift", "interactions", "ratio"), 0.49),
        ("the number of interactions is plausible", ("drift", "interactions", "ratio"), 10.1),
        ("the number of users is plausible", ("drift", "users", "ratio"), 0.49),
        ("the number of items is plausible", ("drift", "items", "ratio"), 0.49),
        ("users have histories as long as before", ("drift", "median_interactions", "ratio"), 0.3),
        ("actions mean what they did", ("drift", "action", "shift"), 1.01),
        ("data is not older than production's", ("drift", "newest", "days_back"), 31),
        ("users are as active as before", ("drift", "activity", "distance"), 0.51),
        ("popular items stay popular", ("drift", "popularity", "ratio"), 0.24),
        ("no flood on a few items", ("drift", "popularity", "distance"), 0.51),
        ("likes are predicted", ("action", "normalised_entropy", "high"), 1.0),
    ],
)
def test_the_default_policy_blocks(name, path, value):
    evaluation = good_evaluation()
    put(evaluation, path, value)
    verdict = evaluate_gate(evaluation, POLICY)
    assert not verdict.blessed
    assert result(verdict, name) in verdict.blockers
    assert repr(name) in verdict.summary()
    assert "must be" in result(verdict, name).detail


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("keeps up with SASRec", ("paired", "sasrec", "ndcg@10", "relative"), -0.06),
        ("beats text similarity alone", ("paired", "nearest_text", "ndcg@10", "low"), 0.0),
        ("cold items are ranked better than by chance", ("cold", "ahead", "low"), 0.5),
        (
            "cold items are found as well as by their text",
            ("cold", "paired", "nearest_text", "ndcg@10"),
            {"difference": -0.04, "low": -0.07, "high": -0.01},
        ),
        ("loss against the champion is small", ("paired", "champion", "ndcg@10", "relative_low"), -0.06),
        ("answers in time", ("latency", "p99_ms"), 101),
        (
            "ranking by action finds what is liked",
            ("action", "ndcg", "liked", "paired", "ndcg@10"),
            {"difference": -0.004, "low": -0.007, "high": -0.001},
        ),
        ("the codebook fits the new items", ("codebook", "unexplained_new"), 1.01),
        ("users' activity moved little", ("drift", "activity", "distance"), 0.21),
        ("popularity moved little", ("drift", "popularity", "distance"), 0.21),
    ],
)
def test_the_default_policy_warns_without_blocking(name, path, value):
    evaluation = good_evaluation()
    put(evaluation, path, value)
    verdict = evaluate_gate(evaluation, POLICY)
    assert verdict.blessed
    assert [item.name for item in verdict.warnings] == [name]
    assert name in verdict.summary()


def test_what_there_was_nothing_to_measure_for_is_not_applicable_and_says_why():
    verdict = evaluate_gate(say_unmeasured(good_evaluation()), POLICY)
    assert verdict.blessed and not verdict.warnings
    unmeasured = {item.name: item for item in verdict.conditions if item.verdict == "not applicable"}
    parts = {"likes are predicted": "action", "cold items are ranked better than by chance": "cold"}
    parts |= {
        "semantic IDs stay": "codebook.churn.unasked",
        "actions mean what they did": "drift.action.shift",
    }
    for name, part in parts.items():
        assert unmeasured[name].value is None
        assert unmeasured[name].detail == f"There was nothing to measure: {UNMEASURED[part]}"
    assert len(unmeasured) == 10
    assert {item.verdict for item in verdict.conditions} == {"pass", "not applicable"}


@pytest.mark.parametrize("part", UNMEASURED)
def test_a_policy_can_require_what_need_not_be_measured(part):
    condition = next(item for item in POLICY.conditions if item.metric_name.startswith(part))
    required = condition.model_copy(update={"required": True, "severity": "block"})
    policy = POLICY.model_copy(update={"conditions": (*POLICY.conditions[:3], required)})
    assert evaluate_gate(good_evaluation(), policy).blessed
    verdict = evaluate_gate(say_unmeasured(good_evaluation(), [part]), policy)
    assert [item.name for item in verdict.blockers] == [condition.name]
    assert verdict.blockers[0].detail.endswith("but the policy requires it.")


@pytest.mark.parametrize("reasons", [None, [], "action", {"action": ""}, {"action": 3}, {"Action": "no"}, {}])
@pytest.mark.parametrize("action", [None, {}])
def test_evidence_that_lacks_a_part_without_a_reason_does_not_pass(action, reasons):
    evaluation = good_evaluation()
    evaluation["action"], evaluation["not_measured"] = action, reasons
    verdict = evaluate_gate(evaluation, POLICY)
    assert "likes are predicted" in [item.name for item in verdict.blockers]
    remove(evaluation, ("action",))
    assert not evaluate_gate(evaluation, POLICY).blessed


@pytest.mark.parametrize("part", ["paired.popularity", "paired.champion", "holdout", "latency", ""])
def test_what_is_always_measured_cannot_be_excused(part):
    evaluation = good_evaluation() | {"not_measured": {part: "there was nothing to measure."}}
    put(evaluation, ("paired", "popularity", "ndcg@10", "low"), None)
    verdict = evaluate_gate(evaluation, POLICY)
    assert result(verdict, "beats popularity").verdict == "fail"
    assert result(verdict, EVIDENCE) in verdict.blockers


def test_what_was_measured_cannot_be_called_unmeasured():
    evaluation = good_evaluation() | {"not_measured": {"action": "the release has no action ranker."}}
    verdict = evaluate_gate(evaluation, POLICY)
    assert verdict.blockers == (result(verdict, EVIDENCE),)
    assert "'action' was measured, but there was nothing to measure" in verdict.blockers[0].detail


def test_a_second_release_says_that_it_was_compared_though_bootstrap_was_asked_for():
    """`make run` always asks for bootstrap: only where nothing was compared the verdict says so."""
    first = evaluate_gate(good_evaluation(champion=None), POLICY, bootstrap=True)
    assert first.bootstrap and not first.compared and first.compared_on is None
    assert first.summary().startswith("Passed the gate, as a first release, compared with none")
    second = evaluate_gate(good_evaluation(), POLICY, bootstrap=True)
    assert second.compared and not second.bootstrap
    assert (second.champion, second.compared_on, second.holdout) == ("c" * 64, "f" * 64, "d" * 64)
    assert second == evaluate_gate(good_evaluation(), POLICY, bootstrap=False)


DRIFT = [path for path in paths(good_evaluation()) if path[0] == "drift" and path[-1] in
         ("drift", "ratio", "shift", "days_back", "distance")]  # fmt: skip


@pytest.mark.parametrize("path", DRIFT)
def test_missing_drift_blocks_where_there_is_a_champion(path):
    evaluation = good_evaluation()
    remove(evaluation, path)
    assert not evaluate_gate(evaluation, POLICY).blessed
    assert not evaluate_gate(evaluation, POLICY, bootstrap=True).blessed


def test_a_production_without_distributions_does_not_pass_unseen():
    evaluation = good_evaluation()
    for name in ("activity", "popularity"):
        put(evaluation, ("drift", name, "distance"), None)
    put(evaluation, ("drift", "popularity", "ratio"), None)
    verdict = evaluate_gate(evaluation, POLICY)
    missing = {"users are as active as before", "popular items stay popular", "no flood on a few items"}
    assert {item.name for item in verdict.blockers} == missing


FORCED = {"number": 3, "release": "c" * 64, "who": "ann", "when": "2020-02-02T03:31:00+00:00",
          "why": "urgent", "in_use": True, "failing": ["beats popularity"]}  # fmt: skip


def test_a_promotion_by_force_is_told_and_decides_nothing(tmp_path):
    earlier = FORCED | {"number": 2, "in_use": False}
    verdict = evaluate_gate(good_evaluation(), POLICY, forced=[FORCED, earlier])
    plain = evaluate_gate(good_evaluation(), POLICY)
    assert (verdict.blessed, verdict.conditions) == (plain.blessed, plain.conditions)
    assert verdict.summary() == f"{plain.summary()} The champion is in use by force (ann, entry 3)."
    verdict.write(tmp_path / "verdict.json")
    assert Verdict.read(tmp_path / "verdict.json") == verdict
    promotions = json.loads((tmp_path / "verdict.json").read_text())["forced"]
    assert [(item["who"], item["why"], item["number"]) for item in promotions] == [
        ("ann", "urgent", 3),
        ("ann", "urgent", 2),
    ]


def test_a_verdict_without_promotions_by_force_is_read(tmp_path):
    raw = evaluate_gate(good_evaluation(), POLICY).to_json()
    del raw["forced"]
    (tmp_path / "verdict.json").write_text(json.dumps(raw))
    assert Verdict.read(tmp_path / "verdict.json").forced == ()


@pytest.mark.parametrize("forced", [None, "x", [3], [FORCED | {"who": ""}], [{**FORCED, "extra": 1}]])
def test_promotions_that_cannot_be_read_are_an_error(forced):
    with pytest.raises(EvidenceError, match="forced promotions of production cannot be read"):
        evaluate_gate(good_evaluation(), POLICY, forced=forced)


def test_evidence_of_a_good_challenger_can_be_true():
    for champion in ("c" * 64, None):
        assert contradictions(good_evaluation(champion)) == []


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("champion", "users_share"), 100, "champion.users_share is 100"),
        (("champion", "users_share"), 0.9, "but 930 of 943 users are compared"),
        (("champion", "users"), 944, "champion.users is 944, but holdout.users is 943"),
        (("champion", "items"), 1346, "champion.items is 1346, but champion.items_champion is 1345"),
        (("champion", "release"), "e" * 64, "but drift was measured against"),
        (("drift", "release"), None, "but drift was measured against None"),
        (("codebook", "collision_rate"), -1, "codebook.collision_rate is -1"),
        (("codebook", "usage_min"), 5, "codebook.usage_min is 5"),
        (("codebook", "usage"), [1.0, 5, 0.94], "codebook.usage.1 is 5"),
        (("codebook", "usage_min"), "0.94", "codebook.usage_min is '0.94'"),
        (("codebook", "usage_min"), True, "codebook.usage_min is True"),
        (("codebook", "unexplained"), float("nan"), "codebook.unexplained is nan"),
        (("models", "sasrec", "recall@10", "mean"), 1.4, "models.sasrec.recall@10.mean is 1.4"),
        (("models", "sasrec", "ndcg@5", "low"), 0.9, "low, mean, high in the order 0.9"),
        (("models", "sasrec", "ndcg@10", "mean"), 0.065, "paired.sasrec.ndcg@10.difference is 0.001, but"),
        (("paired", "popularity", "ndcg@10", "low"), 0.5, "low, difference, high in the order 0.5"),
        (("paired", "popularity", "ndcg@10", "high"), -0.5, "low, difference, high in the order"),
        (("paired", "popularity", "ndcg@10", "relative_low"), 7, "relative_low, relative, relative_high in"),
        (("paired", "champion", "ndcg@10", "difference"), -1.5, "paired.champion.ndcg@10.difference is -1.5"),
        (("holdout", "users"), -5, "holdout.users is -5"),
        (("holdout", "users"), 943.5, "holdout.users is 943.5"),
        (("holdout", "users"), 400, "slices.head items.users is 600, but holdout.users is 400"),
        (("holdout", "hits"), 200, "holdout has 200 hits of 943 users"),
        (("latency", "p50_ms"), 12, "p50_ms, p99_ms in the order 12, 9.7"),
        (("latency", "p99_ms"), -5, "latency.p99_ms is -5"),
        (("drift", "popularity", "distance"), 1.5, "drift.popularity.distance is 1.5"),
        (("cold", "users"), 1e400, "cold.users is inf"),
        (("slices", "tail items", "models", "challenger", "ndcg@10"), 2, "slices.tail items.models"),
        (("action", "auc"), 79, "action.auc is 79"),
    ],
)  # fmt: skip
def test_evidence_that_cannot_be_true_blocks_whatever_the_policy_says(path, value, says):
    policy = parse_policy(
        "conditions: [{name: better, metric: paired.popularity.recall@5.difference, above: 0, why: w}]"
    )
    evaluation = good_evaluation()
    assert evaluate_gate(evaluation, policy).blessed
    put(evaluation, path, value)
    verdict = evaluate_gate(evaluation, policy)
    assert verdict.blockers == (result(verdict, EVIDENCE),)
    assert says in result(verdict, EVIDENCE).detail


def test_a_comparison_with_a_champion_that_is_not_there_is_a_contradiction():
    evaluation = good_evaluation()
    evaluation["champion"] = evaluation["drift"] = {"release": None}
    verdict = evaluate_gate(evaluation, POLICY, bootstrap=True)
    assert verdict.blockers == (result(verdict, EVIDENCE),)


@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        (None, "is null"),
        (True, "is a bool"),
        ("0.5", "is a str"),
        ([0.5], "is a list"),
        ({"mean": 0.5}, "is a dict"),
        (float("nan"), "not a finite number"),
        (float("inf"), "not a finite number"),
        (10**400, "not a finite number"),
    ],
)
def test_what_is_not_a_finite_number_fails(value, flaw):
    evaluation = good_evaluation()
    put(evaluation, ("paired", "popularity", "ndcg@10", "low"), value)
    verdict = evaluate_gate(evaluation, POLICY)
    assert not verdict.blessed
    assert flaw in result(verdict, "beats popularity").detail
    assert result(verdict, "beats popularity").value is None
    json.dumps(verdict.to_json(), allow_nan=False)


def test_a_first_release_is_blocked_until_bootstrap_is_asked_for():
    evaluation = good_evaluation(champion=None)
    blocked = evaluate_gate(evaluation, POLICY)
    assert not blocked.blessed
    assert "pass bootstrap for the first release" in result(blocked, CHAMPION).detail

    blessed = evaluate_gate(evaluation, POLICY, bootstrap=True)
    assert blessed.blessed and blessed.champion is None
    waived = {item.name for item in blessed.conditions if item.verdict == "waived"}
    assert waived == {CHAMPION} | {item.name for item in POLICY.conditions if item.when == "champion"}


def test_bootstrap_waives_nothing_that_does_not_concern_the_champion():
    evaluation = good_evaluation(champion=None)
    put(evaluation, ("paired", "popularity", "ndcg@10", "low"), -0.01)
    assert not evaluate_gate(evaluation, POLICY, bootstrap=True).blessed


def test_bootstrap_waives_nothing_where_a_champion_exists():
    evaluation = good_evaluation()
    put(evaluation, ("paired", "champion", "ndcg@10", "high"), -0.01)
    verdict = evaluate_gate(evaluation, POLICY, bootstrap=True)
    assert not verdict.blessed
    assert "waived" not in {item.verdict for item in verdict.conditions}


@pytest.mark.parametrize("champion", ["", "  ", 0, False, [], {}])
def test_only_an_explicit_null_means_no_champion(champion):
    evaluation = good_evaluation(champion=None)
    evaluation["champion"]["release"] = champion
    assert not evaluate_gate(evaluation, POLICY, bootstrap=True).blessed


def test_a_champion_left_out_of_the_evidence_is_not_waived():
    evaluation = good_evaluation(champion=None)
    remove(evaluation, ("champion",))
    verdict = evaluate_gate(evaluation, POLICY, bootstrap=True)
    assert not verdict.blessed
    assert "does not say" in result(verdict, CHAMPION).detail


def test_a_policy_without_champion_conditions_still_asks_for_bootstrap():
    policy = parse_policy(
        "conditions: [{name: better, metric: paired.popularity.ndcg@10.low, above: 0, why: w}]"
    )
    assert not evaluate_gate(good_evaluation(champion=None), policy).blessed
    assert evaluate_gate(good_evaluation(champion=None), policy, bootstrap=True).blessed


@pytest.mark.parametrize("bootstrap", ["true", 1, "false"])
def test_bootstrap_must_be_true_itself(bootstrap):
    assert not evaluate_gate(good_evaluation(champion=None), POLICY, bootstrap=bootstrap).blessed


@pytest.mark.parametrize(
    ("bound", "holds", "breaks"),
    [
        ("above: 0.1", 0.1001, 0.1),
        ("at_least: 0.1", 0.1, 0.0999),
        ("below: 0.1", 0.0999, 0.1),
        ("at_most: 0.1", 0.1, 0.1001),
        ("between: [0.1, 0.3]", 0.1, 0.0999),
        ("between: [0.1, 0.3]", 0.3, 0.3001),
    ],
)
def test_each_bound_at_its_edge(bound, holds, breaks):
    policy = parse_policy(
        f"conditions: [{{name: a, metric: [models, a.b c, ndcg@10, mean], {bound}, why: w}}, "
        "{name: b, metric: paired.sasrec.ndcg@10.low, above: 0, why: w}]"
    )
    for value, expected in ((holds, "pass"), (breaks, "fail")):
        evidence = {"models": {"a.b c": {"ndcg@10": {"mean": value}}}, "champion": {"release": "r"}}
        assert result(evaluate_gate(evidence, policy), "a").verdict == expected


@pytest.mark.parametrize("evidence", [None, [], "x", 3])
def test_evidence_that_is_no_mapping_is_an_error(evidence):
    with pytest.raises(EvidenceError, match="must be a mapping"):
        evaluate_gate(evidence, POLICY)


def test_a_verdict_survives_its_file(tmp_path):
    verdict = evaluate_gate(good_evaluation(champion=None), POLICY, bootstrap=True)
    verdict.write(tmp_path / "deep" / "verdict.json")
    assert Verdict.read(tmp_path / "deep" / "verdict.json") == verdict
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["verdict.json"]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda raw: raw.update(blessed=True),
        lambda raw: raw.update(conditions=[]),
        lambda raw: raw.pop("conditions"),
        lambda raw: raw.pop("blessed"),
        lambda raw: raw.update(blessed="true"),
        lambda raw: raw.update(extra=1),
        lambda raw: [one.update(verdict="waived") for one in raw["conditions"]],
        lambda raw: raw.update(forced=None),
        lambda raw: raw.update(forced=[{"who": "ann"}]),
    ],
)
def test_a_tampered_verdict_is_refused(tmp_path, tamper):
    evaluation = good_evaluation()
    put(evaluation, ("paired", "popularity", "ndcg@10", "low"), -1)
    raw = evaluate_gate(evaluation, POLICY).to_json()
    tamper(raw)
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(EvidenceError, match=r"verdict\.json"):
        Verdict.read(path)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", "\xff", "[" * 100_000])
def test_unreadable_evidence_is_an_error(tmp_path, content):
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(EvidenceError, match=r"evaluation\.json .*run the evaluate step again"):
        Evaluation.read_object(path)


def test_an_evaluation_file_with_nan_is_refused(tmp_path):
    evaluation = good_evaluation()
    put(evaluation, ("codebook", "collision_rate"), float("nan"))
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(evaluation))
    with pytest.raises(EvidenceError, match=r"'NaN' is not a finite number\); run the evaluate step again"):
        Evaluation.read_object(path)


def test_an_evaluation_file_that_says_a_thing_twice_is_refused(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(
        json.dumps(good_evaluation()).replace('"usage_min": 0.94', '"usage_min": 0.94, "usage_min": 1')
    )
    with pytest.raises(EvidenceError, match=r"'usage_min' is given 2 times"):
        Evaluation.read_object(path)
