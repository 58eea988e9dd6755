"""The ingested dataset as the library reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from car_model.data.dataset import Dataset, DatasetError
from tests.car_model.builders import tiny_dataset
from tests.fixtures import ITEMS, tiny_histories, tiny_texts

FILES = ("interactions.parquet", "items.parquet", "report.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    example = tiny_dataset()
    example.interactions.to_parquet(tmp_path / "interactions.parquet")
    example.items.to_parquet(tmp_path / "items.parquet")
    (tmp_path / "report.json").write_text(example.report.model_dump_json())
    return tmp_path


def test_a_folder_becomes_texts_and_histories(folder: Path) -> None:
    data = Dataset.load(folder)
    assert data.texts() == tiny_texts()
    assert (data.digest, data.text_columns) == ("0" * 64, ("title", "genre", "year"))
    loaded, example = data.histories({f"i{at}": at for at in range(1, ITEMS + 1)}), tiny_histories()
    by_user = dict(
        zip(example.users, zip(example.train, example.valid, example.test, strict=True), strict=True)
    )
    assert sorted(loaded.users) == sorted(example.users)
    for user, train, valid, test in zip(loaded.users, loaded.train, loaded.valid, loaded.test, strict=True):
        assert train.tolist() == by_user[user][0].tolist()
        assert (valid, test) == by_user[user][1:]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"{", b"PAR1PAR1"])
def test_a_missing_or_damaged_file_is_refused(folder: Path, name: str, content: bytes | None) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DatasetError, match=r"the dataset in .* can't be read") as caught:
        Dataset.load(folder)
    assert str(folder) in str(caught.value)
