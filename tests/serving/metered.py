"""A recommender with a golden profile, and what Prometheus would read of a server."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from car_model.bundle import Bundle
from car_model.profiling import profiled
from car_model.recommend import Recommender
from tests.fixtures import tiny_histories, tiny_parts

RELEASE = "3f9ac2d410be" + "0" * 52

Key = tuple[str, frozenset[tuple[str, str]]]


@cache
def profiled_parts(seed: int = 0) -> Bundle:
    return profiled(tiny_parts(seed=seed, epochs=1), tiny_histories())


def recommender(seed: int = 0, release: str = RELEASE) -> Recommender:
    return Recommender(profiled_parts(seed), release)


def scraped(text: str) -> dict[Key, float]:
    """Every sample of an exposition by name and labels, without those that only a server adds."""
    return {
        (sample.name, frozenset(pair for pair in sample.labels.items() if pair[0].lower() != "hostname")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def shown(registry: CollectorRegistry) -> dict[Key, float]:
    return scraped(generate_latest(registry).decode())


def key(name: str, **labels: str) -> Key:
    return name, frozenset(labels.items())
