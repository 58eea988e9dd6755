import base64
import copy
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_model.evidence.evaluation import Evaluation
from tests.validation.gate_evidence import GARBAGE, good_evaluation, paths, put, say_unmeasured
from validation.gate.gate import evaluate_gate
from validation.gate.policy import load_policy, parse_policy
from validation.report.report import ReportInputs, render_report

HOSTILE = "\x07\"'>]]>--><script>alert(1)</script><img src=x onerror=alert(2)>$\\frac{1}$"
SHOWN = (
    """
CAR (challenger)|0.0700|0.0600 to 0.0800|Champion|SASRec|Popularity|+40.0 %|≥ -0.05
3 levels of 32|12.0 % of the items
Star Wars (1977)|expected 'space' (0.41)|After Alien (1979) → Contact (1997)|172
1,000 of 1,200 rows kept|k-core 5/5|200|2020-01-01 to 2020-02-01
encoder name|minilm|1234abcd|bbbbbbbbbbbb
""".strip()
    .replace("\n", "|")
    .split("|")
)
DATASET = {
    "name": "films",
    "read": {"interactions": 1200, "items": 90},
    "dropped": {"interactions": {"missing id": 0, "k-core 5/5": 200}, "items": {"no kept interaction": 7}},
    "kept": {"interactions": 1000, "items": 83},
    "users": 40,
    "items": 83,
    "density": 0.3,
    "first_time": "2020-01-01T00:00:00Z",
    "last_time": "2020-02-01T00:00:00Z",
}
EPOCHS = [1, 2, 3]
ITEMS = [
    {"item_id": "50", "title": "Star Wars (1977)", "score": 3.25, "reasons": ["expected 'space' (0.41)"]},
    {"item_id": "172", "title": "", "score": None, "reasons": []},
]
SAMPLE = {"user": "7", "history": ["Alien (1979)", "Contact (1997)"], "items": ITEMS, "fallback": None}


def full_evaluation(champion="c" * 64):
    """All that evaluate can write."""
    curves = {"train_loss": [5.0, 4.0, 3.5], "think_loss": [2.0, 1.5, 1.2], "act_loss": [4.0, 3.4, 3.0]}
    training = {
        "challenger": {"epoch": EPOCHS, **curves, "valid_ndcg@10": [0.01, 0.04, 0.06]},
        "sasrec": {"epoch": EPOCHS, "train_loss": [5.1, 4.3, 4.0], "valid_ndcg@10": [0.02, 0.03, 0.05]},
    }
    return good_evaluation(champion) | {"training": training, "samples": [SAMPLE]}


def inputs_of(evaluation, verdict=None, **facts):
    """Evidence as the report step reads it."""
    verdict = verdict or evaluate_gate(evaluation, load_policy())
    return ReportInputs(Evaluation.salvage(evaluation), verdict, **facts)


def full_inputs(champion="c" * 64, bootstrap=False):
    """Everything that the pipeline can hand over."""
    evaluation = full_evaluation(champion)
    return inputs_of(
        evaluation,
        evaluate_gate(evaluation, load_policy(), bootstrap),
        dataset=DATASET,
        bundle={"codebook": "b" * 64, "encoder": {"name": "minilm", "revision": None}, "format": 1},
        run={"git commit": "1234abcd"},
    )


def rendered(inputs, folder):
    path = folder / "report.html"
    render_report(inputs, path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return rendered(full_inputs(), tmp_path_factory.mktemp("report"))


class Tags(HTMLParser):
    """All tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def pictures(page):
    sources = [attributes["src"] for tag, attributes in Tags(page).tags if tag == "img"]
    prefix = "data:image/svg+xml;base64,"
    assert all(source.startswith(prefix) for source in sources)
    return [base64.b64decode(source.removeprefix(prefix)).decode() for source in sources]


def test_the_report_shows_the_verdict_and_all_evidence(page):
    text = " ".join(Tags(page).text.split())
    assert text.index("Passed the gate") < text.index("Models on the same holdout")
    for part in SHOWN:
        assert part in text, part
    for condition in load_policy().conditions:
        assert condition.name in text and condition.why in text
    assert len(pictures(page)) == 5


def test_the_report_is_one_file_that_fetches_nothing(page):
    tags = Tags(page).tags
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    assert not [
        value
        for tag, attributes in tags
        for key, value in attributes.items()
        if key in ("href", "srcset", "action")
    ]
    assert not re.search(r"@import|url\(", page)
    policy = next(
        attributes["content"]
        for tag, attributes in tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")


def test_pictures_are_well_formed_and_without_references(page):
    for picture in pictures(page):
        root = ElementTree.fromstring(picture)  # noqa: S314 (our own output)
        assert not [
            element for element in root.iter() if element.tag.endswith(("script", "foreignObject", "image"))
        ]


def test_equal_inputs_give_equal_bytes(page, tmp_path):
    assert rendered(full_inputs(), tmp_path) == page


def test_a_blocked_release_says_so_first(tmp_path):
    evaluation = full_evaluation()
    put(evaluation, ("paired", "popularity", "ndcg@10", "low"), -0.01)
    put(evaluation, ("latency", "p99_ms"), 250)
    text = Tags(rendered(inputs_of(evaluation), tmp_path)).text
    top = text[: text.index("What the policy requires")]
    assert "Not promoted" in top and "Passed the gate" not in top
    assert "paired.popularity.ndcg@10.low is -0.01, but must be > 0." in top
    assert top.index("beats popularity") < top.index("answers in time"), "what blocks comes before what warns"


def test_a_first_release_shows_what_was_waived(tmp_path):
    text = Tags(rendered(full_inputs(None, bootstrap=True), tmp_path)).text
    assert "22 waived because this is a first release" in text
    assert "yes, as asked for (bootstrap)" in text


def test_a_later_release_says_that_it_was_compared_and_on_what(tmp_path):
    text = words(rendered(full_inputs(bootstrap=True), tmp_path))
    assert "no, it was compared" in text and "asked for" not in text
    assert "d" * 64 in text and "f" * 64 in text  # the holdout, and what both models share of it


def test_the_champions_figures_stand_beside_the_challengers_on_the_same_users(page, tmp_path):
    """On another holdout than all others they have a table of their own."""
    text = words(page)
    apart = text[text.index("Challenger and champion Champion and challenger have") :]
    assert "another holdout than the one above, ffffffffffff" in apart
    assert apart.index("CAR (challenger) 0.0840") < apart.index("Champion 0.0816")
    assert "Champion 0.0816" not in text[: text.index("Challenger and champion Champion")]
    evaluation = full_evaluation()
    evaluation["champion"]["holdout"] = evaluation["holdout"]["digest"]
    together = words(rendered(inputs_of(evaluation), tmp_path))
    table = together[together.index("Models on the same holdout") :]
    assert table.index("Champion 0.0816") < table.index("SASRec 0.0828")
    assert "Challenger and champion Champion" not in together


def test_no_difference_is_explained(tmp_path):
    evaluation = full_evaluation()
    evaluation["champion"]["same_weights"] = True
    text = words(rendered(inputs_of(evaluation), tmp_path))
    assert "NDCG@10 compared with Championthe same weights" in text


def words(page):
    return " ".join(Tags(page).text.split())


def test_the_items_that_the_comparison_is_over_are_stated(page, tmp_path):
    assert (
        "different catalogues (the challenger offers 1,349, the champion 1,345). They are compared over the "
        "1,340 items that both offer, on the 930 of 943 users (99 %) whose test item is among them: another "
        "holdout than the one above, ffffffffffff."
    ) in words(page)
    evaluation = full_evaluation()
    same = {"items": 1349, "items_champion": 1349, "users": 943, "users_share": 1.0}
    parts = {key: evaluation[key] for key in ("models", "holdout")}
    text = words(rendered(inputs_of(parts | {"champion": evaluation["champion"] | same}), tmp_path))
    assert "Champion and challenger offer the same 1,349 items: all 943 users are compared." in text
    assert "different catalogues" not in text


def test_the_report_shows_how_far_the_data_moved(page, tmp_path):
    text = words(page)
    for row in (
        "Interactions 99,000 101,000 1.02 times",
        "Users 943 943 1.00 times",
        "Median interactions per user 64 64 1.00 times",
        "Mean action 3.53 ± 1.13 3.53 0.00 standard deviations",
        "Newest interaction 2020-02-01 2020-02-08 7.0 days newer",
        "Share of production's 3 most popular items 1.6 % 1.6 % 1.00 times, distance 0.0",
    ):
        assert row in text, row
    assert "Drift of the data" not in words(rendered(inputs_of({"drift": {"release": None}}), tmp_path))


FORCED = {
    "number": 3,
    "release": "c" * 64,
    "who": "ann@shop",
    "when": "2020-02-02T03:31:00+00:00",
    "why": "withdrawn items must go now",
    "in_use": True,
    "failing": ["cold items are found"],
}


def with_forced(*forced):
    return inputs_of({}, evaluate_gate(good_evaluation(), load_policy(), forced=forced))


def test_items_that_became_popular_are_told(tmp_path):
    risen = {"items": 3, "now": 0.0786, "before_at_most": 0.0041}
    drift = {
        "release": "c" * 64,
        "popularity": {
            "items": 100,
            "before": 0.4,
            "now": 0.35,
            "ratio": 0.875,
            "risen": risen,
            "distance": 0.25,
        },
    }
    text = words(rendered(inputs_of({"drift": drift}), tmp_path))
    assert "most popular items 40.0 % 35.0 % 0.88 times, distance 0.250" in text
    assert "Share of 3 items that have become as popular as these at most 0.4 % 7.9 %" in text


def test_a_champion_in_use_by_force_stands_out(page, tmp_path):
    text = words(rendered(with_forced(FORCED), tmp_path))
    top = text[: text.index("What the policy requires")]
    assert (
        "Forced champion: The champion, cccccccccccc, was put in use by force (entry 3) by ann@shop on "
        "2020-02-02 03:31 UTC, because: withdrawn items must go now. "
        "The gate had failed it on: cold items are found."
    ) in top
    assert "by force" not in words(page)


def test_an_earlier_promotion_by_force_is_told_after_the_one_in_use(tmp_path):
    earlier = FORCED | {"number": 2, "release": "a" * 64, "in_use": False, "failing": [], "who": HOSTILE}
    page = rendered(with_forced(earlier, FORCED), tmp_path)
    text = words(page)
    assert text.index("Forced champion") < text.index("Forced before: An earlier release, aaaaaaaaaaaa")
    assert "script" not in {tag for tag, _ in Tags(page).tags}


def test_only_evaluation_and_verdict_are_needed(tmp_path):
    page = rendered(inputs_of({}), tmp_path)
    assert "Not promoted" in page and not pictures(page)


def test_an_answer_to_nobody_is_a_fallback(tmp_path):
    sample = SAMPLE | {"history": [], "fallback": "popular"}
    text = Tags(rendered(inputs_of({"samples": [sample]}), tmp_path)).text
    assert "Without a history" in text and "Fallback: popular." in text and "Star Wars" in text


def test_hostile_text_is_shown_and_never_markup(tmp_path):
    evaluation = full_evaluation()
    for part in ("models", "paired", "training"):
        evaluation[part][HOSTILE] = evaluation[part]["sasrec"]
    evaluation["slices"][HOSTILE] = {"users": 3, "models": {HOSTILE: {"ndcg@10": 0.1}}}
    evaluation["champion"]["release"] = HOSTILE
    policy = parse_policy(
        "conditions: [{name: <b><script>, metric: paired.popularity.ndcg@10.low, above: 0, why: <img src=y>}]"
    )
    item = {"item_id": "1", "title": HOSTILE, "score": 1.0, "reasons": [HOSTILE]}
    sample = {"user": HOSTILE, "history": [HOSTILE], "items": [item], "fallback": HOSTILE}
    evaluation["samples"] = [sample]
    hostile = inputs_of(
        evaluation,
        evaluate_gate(evaluation, policy),
        dataset=DATASET | {"name": HOSTILE, "dropped": {"interactions": {HOSTILE: 3}, "items": {}}},
        bundle={HOSTILE: HOSTILE},
    )
    page = rendered(hostile, tmp_path)
    tags = Tags(page)
    assert "script" not in {tag for tag, _ in tags.tags}
    assert not [key for _, attributes in tags.tags for key in attributes if key.startswith("on")]
    assert tags.text.count("<script>alert(1)</script>") >= 8
    for picture in pictures(page):
        ElementTree.fromstring(picture)  # noqa: S314 (our own output)


@settings(deadline=None, max_examples=20)
@given(st.data(), GARBAGE)
def test_malformed_evidence_still_gives_a_report(tmp_path_factory, data, garbage):
    evaluation = full_evaluation()
    path = data.draw(st.sampled_from(paths(evaluation)))
    part = {path[0]: copy.deepcopy(evaluation[path[0]])}
    put(part, path, garbage)
    assert "Not promoted" in rendered(inputs_of(part), tmp_path_factory.mktemp("spoiled"))


def test_ranking_by_action_is_told_with_and_without_it(tmp_path):
    inputs = full_inputs()
    text = " ".join(Tags(rendered(inputs, tmp_path)).text.split())
    assert "Ranking by action" in text
    for phrase in (
        "normalised entropy",
        "users who liked their test item",
        "By relevance",
        "users who did not like it",
    ):
        assert phrase in text


def test_without_a_ranker_the_report_says_why(tmp_path):
    evaluation = say_unmeasured(full_evaluation(), ["action"])
    text = " ".join(Tags(rendered(inputs_of(evaluation), tmp_path)).text.split())
    assert "There is no action ranker: the interactions have no actions." in text
    assert "By relevance" not in text
    assert "There was nothing to measure: the interactions have no actions." in text
    assert "2 not applicable" in text


def test_the_evidence_of_these_tests_is_whole():
    for champion in ("c" * 64, None):
        evaluation = full_evaluation(champion)
        read = Evaluation.model_validate_json(json.dumps(evaluation))
        assert read == Evaluation.salvage(evaluation)
