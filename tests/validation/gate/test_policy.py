import pytest

from validation.gate.policy import PolicyError, load_policy, parse_policy

GOOD = "{name: a, metric: latency.p99_ms, above: 0, why: because}"


def test_the_default_policy_says_why_for_every_condition():
    policy = load_policy()
    assert len({condition.why for condition in policy.conditions}) == len(policy.conditions)
    assert any(
        condition.when == "champion" and condition.severity == "block" for condition in policy.conditions
    )


def test_defaults_are_the_strict_ones():
    condition = parse_policy(f"conditions: [{GOOD}]").conditions[0]
    assert (condition.severity, condition.when) == ("block", "always")
    assert condition.metric == ("latency", "p99_ms")
    assert condition.bound_text == "> 0"


def test_the_digest_names_meaning_not_layout():
    first = parse_policy(f"conditions: [{GOOD}]")
    same = parse_policy(
        "# note\nconditions:\n  - metric: [latency, p99_ms]\n    above: 0.0\n    why: because\n    name: a\n"
    )
    other = parse_policy(f"conditions: [{GOOD.replace('above', 'at_least')}]")
    assert first.digest == same.digest != other.digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a mapping"),
        ("[]", "must be a mapping"),
        ("conditions: [", "not valid YAML"),
        ("conditions: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("{}", "conditions: Field required"),
        ("conditions: []", "at least 1 item"),
        ("conditions: null", "valid tuple"),
        (f"conditions: [{GOOD}]\nconditionz: []", "conditionz: Extra inputs"),
        (f"conditions: [{GOOD}]\nconditions: [{GOOD}]", "'conditions' is given twice"),
        (f"conditions: [{GOOD}, {GOOD}]", "'a' is used twice"),
        (
            "conditions: [{name: a, metric: cold.users, above: 0, above: -9, why: w}]",
            "'above' is given twice",
        ),
        ("conditions: [{name: a, metric: cold.users, above: 0, at_most: 1, why: w}]", "exactly one of"),
        (
            "conditions: [{name: a, metric: cold.users, above: 0, between: [0, 1], why: w}]",
            "exactly one of",
        ),
        (
            "conditions: [{name: a, metric: cold.users, between: [1, 0], why: w}]",
            "the lower number comes first",
        ),
        ("conditions: [{name: a, metric: cold.users, between: [0, .inf], why: w}]", "finite number"),
        ("conditions: [{name: a, metric: cold.users, between: [false, 1], why: w}]", "not true or false"),
        ("conditions: [{name: a, metric: cold.users, between: [0], why: w}]", "conditions.0.between"),
        (
            "conditions: [{name: a, metric: cold.users, between: [0, 1, 2], why: w}]",
            "conditions.0.between",
        ),
        ("conditions: [{name: a, metric: cold.users, between: 3, why: w}]", "conditions.0.between (a)"),
        ("conditions: [{name: a, metric: cold.users, why: w}]", "found none"),
        ("conditions: [{name: a, metric: cold.users, above: .nan, why: w}]", "finite number"),
        ("conditions: [{name: a, metric: cold.users, above: -.inf, why: w}]", "finite number"),
        ("conditions: [{name: a, metric: cold.users, above: true, why: w}]", "not true or false"),
        ("conditions: [{name: a, metric: cold.users, above: much, why: w}]", "conditions.0.above (a)"),
        ("conditions: [{name: a, metric: cold.users, above: 0}]", "conditions.0.why (a): Field required"),
        ("conditions: [{name: a, metric: cold.users, above: 0, why: ' '}]", "conditions.0.why"),
        ("conditions: [{name: a, metric: cold..users, above: 0, why: w}]", "conditions.0.metric"),
        (
            "conditions: [{name: a, metric: codebok.usage_min, above: 0, why: w}]",
            "an evaluation has no 'codebok'",
        ),
        (
            "conditions: [{name: a, metric: paired.sasrec.ndgc@10.low, above: 0, why: w}]",
            "conditions.0.metric (a): 'paired.sasrec' has no 'ndgc@10' (it has recall@5",
        ),
        (
            "conditions: [{name: a, metric: champion.release, above: 0, why: w}]",
            "'champion.release' is not a number",
        ),
        ("conditions: [{name: a, metric: '', above: 0, why: w}]", "conditions.0.metric"),
        ("conditions: [{name: a, metric: [], above: 0, why: w}]", "conditions.0.metric"),
        (
            "conditions: [{name: a, metric: cold.users, above: 0, why: w, severity: ignore}]",
            "'block' or 'warn'",
        ),
        (
            "conditions: [{name: a, metric: cold.users, above: 0, why: w, when: never}]",
            "'champion' or 'ranker'",
        ),
        (
            "conditions: [{name: a, metric: cold.users, above: 0, why: w, severity: warn}]",
            "at least one condition needs",
        ),
        (
            "conditions: [{name: a, metric: cold.users, above: 0, why: w, when: champion}]",
            "at least one condition needs",
        ),
    ],
)
def test_a_doubtful_policy_is_refused_with_a_sentence(text, says):
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "mine.yaml")
    assert says in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(PolicyError, match=r"absent\.yaml cannot be read"):
        load_policy(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match=r"binary\.yaml cannot be read"):
        load_policy(tmp_path / "binary.yaml")


def test_every_mistake_is_reported_at_once():
    with pytest.raises(PolicyError) as caught:
        parse_policy(
            "conditions: [{name: a, metric: cold.users, above: 0}, {name: b, metric: cold.items, why: w}]"
        )
    assert "conditions.0.why (a)" in str(caught.value)
    assert "conditions.1 (b)" in str(caught.value)
