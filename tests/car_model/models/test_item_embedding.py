"""Text coordinates: kept by the catalogue, read by the act slot, handed on along a lineage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from car_model.bundle import Bundle, tables
from car_model.codebook.residual_kmeans import CodebookConfig, fit
from car_model.data.catalogue import Catalogue, CatalogueError
from car_model.models.car import CAR
from car_model.training.onboard import onboard
from car_model.training.trainer import TrainConfig, train
from car_model.training.warm_start import warm_start
from car_model.weights import load_car, save_model
from tests.car_model.builders import FUSIONS, LAYOUTS, SPEC, tiny_car, tiny_sids
from tests.fixtures import ITEMS, tiny_histories, tiny_parts, tiny_vectors

AXES = 6


def texts(items: int = ITEMS, axes: int = 16) -> torch.Tensor:
    """Coordinates [items + 1, axes] by UID."""
    return torch.cat([torch.zeros(1, axes), torch.from_numpy(tiny_vectors(items, dim=axes))])


def reader(text: torch.Tensor | None = None, seed: int = 0, **changes: object) -> CAR:
    config = replace(tiny_car().config, text_dim=AXES, **changes)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    model = CAR(config, tiny_sids(), texts() if text is None else text)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
        model.uid.weight[0] = 0
    return model.eval()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_act_slot_reads_the_main_axes_of_its_text(layout: str, fusion: str) -> None:
    model = reader(layout=layout, fusion=fusion)
    other = texts()
    other[5, :AXES] += 1.0  # the scale is that of the first catalogue
    changed = reader(other, layout=layout, fusion=fusion)
    changed.text_reader.scale.copy_(model.text_reader.scale)  # type: ignore[union-attr]
    uids = torch.tensor([[4, 5, 6]])
    before, after = model.embed(uids), changed.embed(uids)
    moved = (before != after).any(dim=-1)[0]  # [T, slots]
    assert moved[1, -1]
    assert not moved[[0, 2]].any()
    assert not moved[:, :-1].any()
    beyond = texts()
    beyond[:, AXES:] += 1.0
    assert torch.equal(reader(beyond, layout=layout, fusion=fusion).embed(uids), before)


def test_input_and_head_read_the_same_text() -> None:
    model = reader()
    every = model.item_vectors()
    assert torch.allclose(model.embed(torch.arange(1, ITEMS + 1))[:, -1], every[1:], atol=1e-6)


def test_texts_of_another_number_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"reads 6 coordinates of the texts of 48 items, the catalogue holds 4 of 48"
    ):
        reader(texts(axes=4))
    with pytest.raises(ValueError, match=r"holds 0 of 0"):
        CAR(replace(tiny_car().config, text_dim=AXES), tiny_sids())


def test_a_model_that_reads_texts_learns_and_comes_back_from_disk(tmp_path: Path) -> None:
    model = CAR(replace(tiny_car().config, text_dim=AXES), tiny_sids(), texts())
    start = model.text_reader.map.weight.clone()  # type: ignore[union-attr]
    curves = train(model, tiny_histories(), TrainConfig(epochs=3, batch_size=16, threads=1))
    assert curves.train_loss[-1] < curves.train_loss[0]
    assert not torch.equal(model.text_reader.map.weight, start)  # type: ignore[union-attr]
    save_model(model, tmp_path)
    back = load_car(tmp_path, tiny_sids(), texts())
    history = torch.tensor([[3, 9, 20]])
    with torch.inference_mode():
        assert torch.equal(back.score(history), model.score(history))


def test_the_training_state_of_other_texts_is_not_resumed(tmp_path: Path) -> None:
    config = TrainConfig(epochs=1, batch_size=16, threads=1)
    sizes = replace(tiny_car().config, text_dim=AXES)

    def trained(shift: float, state: Path | None) -> torch.Tensor:
        torch.manual_seed(0)
        model = CAR(sizes, tiny_sids(), texts() + shift)
        train(model, tiny_histories(), config, state)
        return model.uid.weight.detach()

    before = trained(0.0, tmp_path / "state")
    after = trained(1.0, tmp_path / "state")
    assert torch.equal(after, trained(1.0, None))
    assert not torch.equal(after, before)


def told(ids: list[str], text: np.ndarray | None, seed: int = 0) -> Catalogue:
    sids = np.random.default_rng(seed).integers(4, size=(len(ids), 3)).astype(np.int32)
    return Catalogue(ids, ids, sids, text=text)


def rows(count: int, axes: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, axes)).astype(np.float16).astype(np.float32)


def test_a_catalogue_keeps_texts_to_the_bit(tmp_path: Path) -> None:
    made = told(["a", "b", "c"], rows(3))
    made.save(tmp_path / "catalogue.parquet")
    back = Catalogue.load(tmp_path / "catalogue.parquet")
    assert back.text is not None
    assert np.array_equal(back.text, made.text)
    assert back.digest == made.digest
    assert (
        len({made.digest, told(["a", "b", "c"], None).digest, told(["a", "b", "c"], rows(3, seed=1)).digest})
        == 3
    )


def test_along_a_lineage_texts_follow_their_items() -> None:
    old, now = told(["a", "b"], rows(2)), told(["b", "c"], rows(2, seed=1))
    made = old.extend_lineage(now)
    assert made.item_ids == ["a", "b", "c"]
    assert made.text is not None
    assert made.text.tolist() == [old.text[0].tolist(), *now.text.tolist()]  # type: ignore[index,union-attr]
    grown = made.append(["d"], ["D"], made.sids[:1], rows(1, seed=2))
    assert grown.text is not None
    assert grown.text_table is not None
    assert grown.text_table.shape == (5, 5)


@pytest.mark.parametrize(("text", "says"), [(None, "or none"), (rows(1, axes=4), "others 4")])
def test_items_with_and_without_texts_do_not_mix(text: np.ndarray | None, says: str) -> None:
    old = told(["a", "b"], rows(2))
    with pytest.raises(CatalogueError, match=says):
        old.append(["c"], ["C"], old.sids[:1], text)
    with pytest.raises(CatalogueError, match=says):
        old.extend_lineage(told(["c"], text))


def test_a_table_of_other_length_and_nan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"are not a table \[items, axes\]"):
        told(["a", "b"], rows(3))
    told(["a", "b"], rows(2)).save(tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet")
    bad = pa.FixedSizeListArray.from_arrays(pa.array(np.full(10, np.nan, dtype=np.float16)), 5)
    pq.write_table(table.set_column(table.column_names.index("text"), "text", bad), tmp_path / "c.parquet")
    with pytest.raises(CatalogueError, match="NaN or infinity"):
        Catalogue.load(tmp_path / "c.parquet")


def test_codes_do_not_depend_on_how_many_axes_are_kept() -> None:
    vectors = tiny_vectors(items=60, dim=40)
    few, many = (
        fit(vectors, SPEC, "", CodebookConfig(n_levels=3, codebook_size=4, axes=8, text_axes=kept))
        for kept in (0, 30)
    )
    assert (len(few.axes), len(many.axes)) == (8, 30)
    assert np.array_equal(few.encode(vectors), many.encode(vectors))
    assert np.allclose(many.coordinates(vectors)[:, :8], few.coordinates(vectors), atol=2e-3)


def test_coordinates_are_of_float16_and_rebuild_the_vectors() -> None:
    vectors = tiny_vectors(items=60, dim=16)
    book = fit(vectors, SPEC, "", CodebookConfig(n_levels=3, codebook_size=4))
    kept = book.coordinates(vectors)
    assert np.array_equal(kept, kept.astype(np.float16).astype(np.float32))
    assert np.allclose(book.rebuild(kept), vectors, atol=5e-3)


@pytest.fixture(scope="module")
def parent() -> Bundle:
    """A bundle whose model reads texts."""
    parts = tiny_parts()
    catalogue = replace(parts.catalogue, text=parts.codebook.coordinates(tiny_vectors()))
    torch.manual_seed(0)
    model = CAR(replace(parts.model.config, text_dim=AXES), *tables(catalogue))
    train(model, tiny_histories(), TrainConfig(epochs=2, batch_size=16, threads=1))
    return replace(parts, catalogue=catalogue, model=model.eval(), similarity_scale=2.0)


def test_an_onboarded_item_scores_through_its_text_too(parent: Bundle) -> None:
    vectors = tiny_vectors()[:2]
    grown = onboard(parent, ["n0", "n1"], ["N0", "N1"], vectors)
    own = grown.model.item_vectors()[-2:]
    codes = grown.model.code(grown.model.code_rows(torch.tensor([ITEMS + 1, ITEMS + 2]))).sum(dim=1)
    assert grown.model.text_reader is not None
    assert torch.allclose(
        own, codes + grown.model.text_reader(torch.tensor([ITEMS + 1, ITEMS + 2])), atol=1e-6
    )
    assert not torch.allclose(own, codes)
    assert torch.allclose(grown.model.item_vectors()[:-2], parent.model.item_vectors(), atol=1e-6)


@pytest.mark.parametrize("aligned", [True, False])
def test_a_warm_start_keeps_the_vectors_of_items_whose_texts_changed(parent: Bundle, aligned: bool) -> None:
    assert parent.catalogue.text is not None
    turned = parent.catalogue.text[:, ::-1].copy()
    catalogue = replace(parent.catalogue, text=turned)
    torch.manual_seed(5)
    child = CAR(parent.model.config, *tables(catalogue)).eval()
    warm_start(child, catalogue, parent.model, parent.catalogue, aligned)
    assert torch.allclose(child.item_vectors()[1:], parent.model.item_vectors()[1:], atol=1e-4)


def test_where_axes_only_turned_the_text_map_turns_along(parent: Bundle) -> None:
    """New coordinates that hold the same are read as before, so new items gain by them at once."""
    assert parent.catalogue.text is not None
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(AXES, AXES)))[0].astype(np.float32)
    text = np.concatenate([parent.catalogue.text[:, :AXES] @ turn, parent.catalogue.text[:, AXES:]], axis=1)
    catalogue = replace(parent.catalogue, text=text)
    child = CAR(parent.model.config, *tables(catalogue)).eval()
    warm_start(child, catalogue, parent.model, parent.catalogue, aligned=False)
    every = torch.arange(1, ITEMS + 1)
    assert child.text_reader is not None
    assert parent.model.text_reader is not None
    assert torch.allclose(child.text_reader(every), parent.model.text_reader(every), atol=1e-4)
