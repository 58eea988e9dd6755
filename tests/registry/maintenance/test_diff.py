"""Comparing releases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from car_model.bundle import BundleHeader
from car_model.data.catalogue import Catalogue
from car_model.evidence.codebook import Churn
from registry.channels.channel import promote
from registry.errors import ReleaseError
from registry.maintenance.diff import compare
from registry.releases.layout import blob_name
from registry.releases.release import write_release
from registry.store.base import ObjectStore
from tests.registry.bundles import make_bundle, make_evidence, reseal_model, write_json
from tests.registry.conftest import Run
from tests.registry.damage import Change


@pytest.fixture
def pair(store: ObjectStore, tmp_path: Path) -> tuple[str, str]:
    """Digests of a release and of the next day's, which differs in known ways."""
    digests = []
    for day, sids, items in (
        (0, [[0, 0], [1, 1], [2, 2]], "abc"),
        (1, [[0, 0], [1, 3], [2, 2], [3, 3]], "abdc"),
    ):
        bundle = make_bundle(tmp_path / f"bundle-{day}")
        catalogue = Catalogue(list(items), list(items), np.array(sids, dtype=np.int32))
        catalogue.save(bundle / "catalogue.parquet")
        write_json(bundle / "model/config.json", {"d_model": 8 * (1 + day), "layout": "collapsed"})
        header = json.loads(reseal_model(bundle).joinpath("bundle.json").read_text())
        write_json(bundle / "bundle.json", header | {"catalogue": catalogue.digest, "data": f"{day}" * 64})
        metrics = {"ndcg@10": 0.068 + 0.01 * day, "recall@10": 0.1} | ({"recall@5": 1.0} if day else {})
        evidence = make_evidence(tmp_path / f"evidence-{day}", bundle, metrics=metrics)
        digests.append(write_release(store, bundle, evidence).release)
    return digests[0], digests[1]


def test_exactly_the_differences_are_reported(store: ObjectStore, pair: tuple[str, str]) -> None:
    difference = compare(store, *pair)
    assert difference.versions.keys() == {"catalogue", "model", "data"}
    assert (difference.versions["data"].before, difference.versions["data"].after) == ("0" * 64, "1" * 64)
    assert difference.encoder == {}
    assert {
        name: (change.before, change.after, change.difference) for name, change in difference.config.items()
    } == {"d_model": (8, 16, 8)}
    assert difference.metrics.keys() == {"ndcg@10", "recall@5"}
    assert difference.metrics["ndcg@10"].difference == pytest.approx(0.01)
    assert (difference.metrics["recall@5"].before, difference.metrics["recall@5"].difference) == (None, None)
    assert difference.churn == Churn(
        items=3, by_level=(0.333333, 0.666667), whole=0.666667, added=1, retired=0
    )
    assert difference.files.keys() == {"bundle.json", "catalogue.parquet", "model/config.json"}
    assert difference.files["model/config.json"].after - difference.files["model/config.json"].before == 1

    reverse = compare(store, pair[1], pair[0])
    assert (reverse.churn.added, reverse.churn.retired) == (0, 1)
    assert reverse.config["d_model"].difference == -8
    same = compare(store, pair[0], pair[0])
    assert not any((same.versions, same.encoder, same.config, same.metrics, same.files))


def test_the_command_takes_channels_and_short_digests(
    run: Run, store: ObjectStore, pair: tuple[str, str]
) -> None:
    promote(store, "staging", pair[0], who="ann", why="x")
    code, out, error = run("diff", "staging", pair[1][:8], "--json")
    assert (code, error) == (0, "")
    assert json.loads(out) == compare(store, *pair).model_dump(mode="json")
    code, out, _ = run("diff", "staging", pair[1][:8])
    for text in (
        pair[0][:12], pair[1][:12], "+0.0100", "d_model", "encoder: equal", "3 common items: 66.7% changed",
        "by level: 33.3%, 66.7%", "1 items added, 0 retired", "catalogue.parquet", "+1 B",
    ):  # fmt: skip
        assert text in out
    assert "They are the same release." in run("diff", "staging", pair[0])[1]
    assert run("diff", "staging")[0] == 2
    assert run("diff", "staging", "ffffffff")[0] == 1


def test_metrics_of_other_holdouts_and_of_the_unevaluated_are_not_subtracted(
    run: Run, store: ObjectStore, tmp_path: Path
) -> None:
    digests = []
    for seed, holdout in ((1, "a" * 64), (2, "b" * 64), (3, "b" * 64), (4, "")):
        bundle = make_bundle(tmp_path / f"bundle-{seed}", seed)
        metrics = {"ndcg@10": seed / 100}
        evidence = make_evidence(
            tmp_path / f"evidence-{seed}", bundle, holdout=holdout or "c", metrics=metrics
        )
        if not holdout:
            del evidence["evaluation.json"]
        digests.append(write_release(store, bundle, evidence).release)
    month, next_month, retrained, onboarded = digests
    difference = compare(store, month, next_month)
    assert difference.metrics["ndcg@10"].difference is None
    assert "The holdouts differ (aaaaaaaaaaaa, bbbbbbbbbbbb)" in difference.incomparable
    same = compare(store, next_month, retrained)
    assert (same.metrics["ndcg@10"].difference, same.incomparable) == (pytest.approx(0.01), "")
    assert f"Never evaluated itself, so there is nothing to compare: {onboarded[:12]}." in " ".join(
        run("diff", retrained, onboarded)[1].split()
    )
    assert "+0.0100" not in run("diff", month, next_month)[1]
    listed = run("list")[1]
    assert [listed.count("a" * 8), listed.count("b" * 8)] == [1, 2]
    assert "ndcg@10 of different holdouts is of different users" in listed
    assert "Without ndcg@10: never evaluated itself." in listed
    assert "No metrics: this release was never evaluated itself." in run("show", onboarded)[1]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles are released unchecked, as other code may have done."""
    monkeypatch.setattr("car_model.bundle.check_bundle", read_header)


@pytest.mark.usefixtures("unchecked")
def test_an_unreadable_part_is_named(
    run: Run, store: ObjectStore, pair: tuple[str, str], flip: Change, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "odd")
    (bundle / "catalogue.parquet").write_bytes(b"no parquet")
    odd = write_release(store, bundle, make_evidence(tmp_path / "evidence-odd", bundle))
    with pytest.raises(
        ReleaseError, match=r"catalogue.parquet cannot be compared: the catalogue .* can't be read"
    ):
        compare(store, pair[0], odd.release)
    flip(store.url, blob_name(odd.files["model/config.json"].sha256))
    code, out, error = run("diff", pair[0], odd.release)
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert f"model/config.json of release {odd.release[:12]} is damaged" in error


def read_header(folder: Path) -> tuple[BundleHeader, None, None]:
    """The header in bundle.json; nothing else is checked."""
    return BundleHeader.read(folder / "bundle.json"), None, None
