import pytest

from validation.gate.policy import PolicyError, load_policy, parse_policy

GOOD = "{name: a, metric: paired.popularity.ndcg@10.low, above: 0, why: because}"


def beside(condition: str) -> str:
    """A policy with a sound comparison of quality, and another condition on line 3."""
    return f"conditions:\n  - {GOOD}\n  - {{name: b, why: w, {condition}}}"


def test_the_default_policy_says_why_for_every_condition():
    policy = load_policy()
    assert len({condition.why for condition in policy.conditions}) == len(policy.conditions)
    assert any(
        condition.when == "champion" and condition.severity == "block" for condition in policy.conditions
    )


def test_defaults_are_the_strict_ones():
    condition = parse_policy(f"conditions: [{GOOD}]").conditions[0]
    assert (condition.severity, condition.when) == ("block", "always")
    assert condition.metric == ("paired", "popularity", "ndcg@10", "low")
    assert condition.bound_text == "> 0"


def test_the_digest_names_meaning_not_layout():
    first = parse_policy(f"conditions: [{GOOD}]")
    same = parse_policy(
        "# note\nconditions:\n  - metric: [paired, popularity, ndcg@10, low]\n"
        "    above: 0.0\n    why: because\n    name: a\n"
    )
    other = parse_policy(f"conditions: [{GOOD.replace('above', 'at_least')}]")
    warns = parse_policy(beside("metric: latency.p99_ms, at_most: 1, severity: warn"))
    blocks = parse_policy(beside("metric: latency.p99_ms, at_most: 1, severity: block"))
    assert first.digest == same.digest != other.digest
    assert warns.digest != blocks.digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a mapping"),
        ("[]", "must be a mapping"),
        ("conditions: [", "not valid YAML"),
        ("conditions: !!python/object/apply:os.getcwd []", "tags (!)"),
        ("{}", "conditions: is missing"),
        ("conditions: []", "must not be empty"),
        ("conditions: null", "conditions: must be a list"),
        (f"conditions: [{GOOD}]\nconditionz: []", "conditionz: there is no such field"),
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
        (
            "conditions: [{name: a, metric: cold.users, between: [0, .inf], why: w}]",
            "a number in plain digits",
        ),
        (
            "conditions: [{name: a, metric: cold.users, between: [false, 1], why: w}]",
            "a number in plain digits",
        ),
        ("conditions: [{name: a, metric: cold.users, between: [0], why: w}]", "conditions.0.between"),
        (
            "conditions: [{name: a, metric: cold.users, between: [0, 1, 2], why: w}]",
            "conditions.0.between",
        ),
        ("conditions: [{name: a, metric: cold.users, between: 3, why: w}]", "conditions.0.between (a)"),
        ("conditions: [{name: a, metric: cold.users, why: w}]", "found none"),
        (
            "conditions: [{name: a, metric: cold.users, above: .nan, why: w}]",
            "a number in plain digits",
        ),
        (
            "conditions: [{name: a, metric: cold.users, above: -.inf, why: w}]",
            "a number in plain digits",
        ),
        (
            "conditions: [{name: a, metric: cold.users, above: true, why: w}]",
            "a number in plain digits",
        ),
        ("conditions: [{name: a, metric: cold.users, above: much, why: w}]", "conditions.0.above (a)"),
        ("conditions: [{name: a, metric: cold.users, above: 0}]", "conditions.0.why (a): is missing"),
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
            "'always' or 'champion'",
        ),
        (
            "conditions: [{name: a, metric: cold.users, above: 0, why: w, severity: warn}]",
            "must compare quality",
        ),
        (
            "conditions: [{name: a, metric: paired.champion.ndcg@10.low, above: 0, why: w, when: champion}]",
            "must compare quality",
        ),
    ],
)
def test_a_doubtful_policy_is_refused_with_a_sentence(text, says):
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "mine.yaml")
    assert says in str(caught.value)
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["1:30", "0x10", "0o17", "010", "0b11", "1_000", "1e3", "1.0e+3", ".5", "5.", "5%", "'0.5'", "yes", "off",
     ".inf", "-.inf", ".nan", "NaN", "2020-01-01", "[5]", "{a: 5}", "much"],
)  # fmt: skip
def test_what_yaml_reads_in_several_ways_is_no_number(text):
    with pytest.raises(
        PolicyError, match=r"line 3, conditions\.1\.at_most \(b\): .* is not a number in plain digits"
    ):
        parse_policy(beside(f"metric: latency.p99_ms, at_most: {text}"))


@pytest.mark.parametrize("text", ["5", "+5", "-0.05", "0.25", "1000000"])
def test_plain_digits_are_numbers(text):
    condition = parse_policy(beside(f"metric: drift.newest.days_back, at_most: {text}")).conditions[1]
    assert condition.at_most == float(text)


@pytest.mark.parametrize(
    "condition",
    [
        "metric: &here cold.users, above: 0",
        "metric: *there, above: 0",
        "metric: cold.users, above: !!float 0",
    ],
)
def test_anchors_aliases_and_tags_are_refused(condition):
    with pytest.raises(PolicyError, match=r"line 3: anchors .* are refused; write values out"):
        parse_policy(beside(condition))


@pytest.mark.parametrize(
    "text", ["%YAML 1.1\n---\nconditions: []", "a: 1\n---\nb: 2", "? [a]\n: 1", "a:\n\t- b", "\0"]
)
def test_what_is_not_one_plain_document_is_refused(text):
    with pytest.raises(PolicyError, match="is not valid YAML"):
        parse_policy(text)


def test_a_merge_key_is_an_unknown_field():
    with pytest.raises(PolicyError, match=r"line 3, conditions\.1\.<< \(b\): there is no such field"):
        parse_policy(beside("metric: cold.users, above: 0, <<: {severity: warn}"))


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("metric: latency.p99_ms, at_most: 1000000000", "1e+09 is out of reach: latency.p99_ms is 0 to"),
        ("metric: paired.sasrec.ndcg@10.low, above: -1" + 308 * "0", "is not a finite number that an"),
        ("metric: paired.sasrec.ndcg@10.low, above: -1.5", "-1.5 is out of reach"),
        ("metric: paired.sasrec.ndcg@10.low, at_least: -1", ">= -1 can't fail"),
        ("metric: paired.sasrec.ndcg@10.relative, at_least: -5", "-5 is out of reach"),
        ("metric: models.challenger.recall@10.mean, at_least: 0", ">= 0 can't fail"),
        ("metric: models.challenger.recall@10.mean, at_least: 95", "is 0 to 1; 95 % is 0.95"),
        ("metric: champion.users_share, when: champion, between: [0.5, 100]", "100 % is 1"),
        ("metric: codebook.collision_rate, between: [0, 1]", "0 to 1 can't fail"),
        ("metric: codebook.collision_rate, at_most: 1", "<= 1 can't fail"),
        ("metric: codebook.collision_rate, above: 1", "> 1 can't hold"),
        ("metric: codebook.collision_rate, below: 0", "< 0 can't hold"),
        ("metric: holdout.users, above: -1", "-1 is out of reach: holdout.users is 0 or more"),
        ("metric: paired.popularity.ndcg@10.low, above: 0, when: champion", "'when: champion' is for"),
        ("metric: codebook.unexplained, at_most: 0.9, when: champion", "'when: champion' is for"),
    ],
)  # fmt: skip
def test_a_bound_that_means_nothing_is_refused(condition, says):
    with pytest.raises(PolicyError, match=r"^Gate policy policy: line 3, ") as caught:
        parse_policy(beside(condition))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "condition",
    [
        "metric: latency.p99_ms, at_most: 100",
        "metric: holdout.users, at_least: 200",
        "metric: models.challenger.recall@10.mean, at_least: 0.5",
        "metric: paired.popularity.ndcg@10.low, at_most: 0.5",
        "metric: paired.popularity.ndcg@10.low, at_least: -0.5",
        "metric: paired.popularity.ndcg@10.high, above: 0",
        "metric: paired.popularity.ndcg@10.relative, at_least: -0.9",
        "metric: paired.popularity.ndcg@10.low, above: 0, severity: warn",
        "metric: paired.champion.ndcg@10.low, above: 0, when: champion",
        "metric: paired.nearest_text.ndcg@10.low, above: 0",
    ],
)
def test_a_policy_must_block_on_a_comparison_of_quality(condition):
    with pytest.raises(PolicyError, match="must compare quality"):
        parse_policy(f"conditions: [{{name: a, why: w, {condition}}}]")
    parse_policy(beside(condition))


@pytest.mark.parametrize(
    "condition",
    [
        "metric: paired.sasrec.ndcg@10.relative, at_least: -0.05",
        "metric: paired.sasrec.recall@5.relative_low, above: -0.5",
        "metric: paired.popularity.recall@10.difference, between: [0, 1]",
        "metric: paired.nearest_text.ndcg@10.low, above: 0, required: true",
    ],
)
def test_comparisons_that_a_worse_model_fails_are_enough(condition):
    assert parse_policy(f"conditions: [{{name: a, why: w, {condition}}}]").conditions[0].compares_quality


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
