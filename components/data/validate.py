"""Step: the data must be as expected, or the run ends here."""

from kfp.dsl import HTML, Input, Output

from orchestration import artifact_types
from orchestration.step import step


@step
def validate(
    dataset: Input[artifact_types.Dataset],
    policy: str,
    registry: str,
    champion: str,
    data_docs: Output[HTML],
    profile: Output[artifact_types.DataProfile],
    drift: Output[artifact_types.DataDrift],
) -> None:
    """Check the dataset against `policy` (a DataPolicy as JSON) and against production's data profile.

    The drift from production's data goes to the gate as numbers, whatever `policy` lets pass.
    """
    import json
    import logging
    from pathlib import Path

    from car_model.data.catalogue import Catalogue
    from common.digests import file_digest
    from registry.releases.fetch import FetchedRelease
    from registry.store.open import open_store
    from validation.data.policy import DataPolicy
    from validation.data.validate import validate_dataset

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    data_docs.path, profile.path = f"{data_docs.path}.html", f"{profile.path}.json"
    drift.path = f"{drift.path}.json"
    previous = offered = None
    if champion:
        target, catalogue = (Path(f"{profile.path}.production{suffix}") for suffix in (".json", ".parquet"))
        production = FetchedRelease.read(open_store(registry), champion)
        previous = production.fetch_evidence("data_profile.json", target)
        production.fetch_files({"catalogue.parquet": catalogue})
        offered = Catalogue.load(catalogue).offered
    report = validate_dataset(
        Path(dataset.path),
        DataPolicy.model_validate_json(policy),
        Path(data_docs.path),
        json.loads(previous.read_text()) if previous else None,
        offered,
        profile=Path(profile.path),
        release=champion,
    )
    report.drift.write(drift.path)
    drift.metadata.update(digest=file_digest(drift.path), champion=champion)
    profile.metadata.update(dataset=dataset.metadata["digest"], digest=file_digest(profile.path))
    data_docs.metadata.update(dataset=dataset.metadata["digest"], warnings=len(report.warnings))
