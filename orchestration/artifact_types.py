"""What travels between steps: one KFP artifact class per kind, so that a wrong wiring does not compile.

KFP refuses an artifact whose `schema_title` differs from the one that a step asks for. Titles other than
`system.` and `google.` are refused altogether; a class that sets none here gets its own name. HTML pages and
metrics keep KFP's own classes, which its user interface renders. Vertex AI knows KFP's own titles only: see
`standard_titles`.
"""

from __future__ import annotations

import re

from kfp import dsl


class Dataset(dsl.Dataset):
    """Folder: canonical tables of interactions and items, and `report.json` (`ingestion.ingest`)."""

    schema_title = "system.CanonicalDataset"


class DataProfile(dsl.Artifact):
    """JSON file: what the data looked like, to compare later data with (`validation.data.drift`)."""


class DataDrift(dsl.Artifact):
    """JSON file: how far the data moved from production's profile (`validation.data.drift`)."""


class Encoder(dsl.Artifact):
    """JSON file: the text encoder's exact identity, an EncoderSpec (`car_model.encoding.encoder`)."""

    schema_title = "system.TextEncoder"


class VectorShard(dsl.Artifact):
    """Folder: text vectors of one part of the catalogue (`car_model.encoding.shards`)."""


class TextVectors(dsl.Artifact):
    """Folder: text vectors of the whole catalogue, as a vector cache."""


class Codebook(dsl.Artifact):
    """Folder: the centroids that turn text vectors into semantic IDs (`car_model.codebook.codebook`)."""


class Catalogue(dsl.Dataset):
    """Parquet file: items with their unique and semantic IDs (`car_model.data.catalogue`)."""


class CodebookHealth(dsl.Artifact):
    """JSON file: use of the codes, collisions and churn (`car_model.metrics.codebook`)."""


class Bundle(dsl.Model):
    """Folder: everything that a recommender needs (`car_model.bundle`)."""


class Baseline(dsl.Model):
    """Folder: the weights of SASRec, which CAR is compared with (`car_model.weights`)."""


class TrainingCurves(dsl.Artifact):
    """JSON file: losses and metrics per epoch."""


class RankerSummary(dsl.Artifact):
    """JSON file: how the ranker by action was trained, or why none was."""


class Evaluation(dsl.Artifact):
    """JSON file: metrics of challenger, champion and baselines on one holdout."""


class Golden(dsl.Artifact):
    """JSON file: golden requests and the challenger's answers, which a server must repeat."""

    schema_title = "system.GoldenAnswers"


class Verdict(dsl.Artifact):
    """JSON file: the gate's decision, condition by condition (`validation.gate`)."""

    schema_title = "system.GateVerdict"


class Archive(dsl.Artifact):
    """File: the model archive that TorchServe loads (`serving.archive`)."""

    schema_title = "system.ModelArchive"


class InfraReport(dsl.Artifact):
    """JSON file: proof that the archive serves the golden answers, and its latency (`serving.torchserve`)."""


class Promotion(dsl.Artifact):
    """JSON file: the channel's entry after the release (`registry.channels`)."""


class Deployment(dsl.Artifact):
    """JSON file: what the server serves now."""


class RunSummary(dsl.Artifact):
    """JSON file: how a run ended (`orchestration.kubeflow.webhook`)."""


ALL = tuple(value for value in dict(globals()).values() if isinstance(value, type))
for artifact_type in ALL:
    if "schema_title" not in vars(artifact_type):
        artifact_type.schema_title = f"system.{artifact_type.__name__}"  # type: ignore[attr-defined]


def standard_titles(ir: str) -> str:
    """A compiled pipeline (IR YAML) with the titles of KFP's own classes, as Vertex AI requires them."""
    bases = {cls.schema_title: cls.__mro__[1].schema_title for cls in ALL}  # type: ignore[attr-defined]
    return re.sub(r"(?<=schemaTitle: )system\.\w+", lambda match: bases.get(match[0], match[0]), ir)
