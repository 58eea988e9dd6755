"""Levers that CAR lacks, tried on validation: label smoothing, UID rows from texts, fusion by attention.

    python -m benchmarks.levers --data PATH/amazon2014/Beauty

CAR's recipe with fewer epochs and a seed that is reported nowhere else; test items are never ranked. A lever
that stays ahead here would go on to three seeds. Written to benchmarks/results/speed/levers.json.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from benchmarks.data import CACHE, load_dataset
from benchmarks.machine import machine
from benchmarks.rows import settings_of
from benchmarks.sheets import Sheet
from car_model.bundle import tables
from car_model.cross_entropy import linear_cross_entropy
from car_model.encoder import EncoderSpec
from car_model.model import CAR, CARConfig
from car_model.quantise import CodebookConfig
from car_model.recipe import parse_recipe
from car_model.tokenization import tokenize
from car_model.training import train

OUTPUT = Path("benchmarks/results/speed/levers.json")
SEED, SMOOTHING = 9, 0.1

app = typer.Typer(add_completion=False)


class Smoothed(CAR):
    """A tenth of every target is spread over all items."""

    def _act_loss(self, states: Tensor, wanted: Tensor, shown: Tensor | None) -> Tensor:
        weight, bias = self.act_weights(shown)
        plain = linear_cross_entropy(states, weight, bias, wanted)
        if not self.training:
            return plain
        own = (states * weight[wanted]).sum(dim=1) + bias[wanted]  # [N]
        usual = states @ weight[1:].mean(dim=0) + bias[1:].mean()  # [N] mean logit of all items
        return plain + SMOOTHING * (own - usual).mean()


def from_texts(config: CARConfig, sids: Tensor, text: Tensor) -> CAR:
    """UID rows start at the items' coordinates of text, as far spread as they start otherwise."""
    model = CAR(config, sids, text)
    axes = min(config.width, text.shape[1])
    with torch.no_grad():
        spread = model.uid.weight[1:].std()
        model.uid.weight[1:, :axes] = text[1:, :axes] / text[1:, :axes].std() * spread
    return model


class Attending(CAR):
    """The act slot takes its codes' rows by attention, not all alike."""

    def __init__(self, config: CARConfig, sids: Tensor, text: Tensor | None = None) -> None:
        super().__init__(config, sids, text)
        self.ask = nn.Linear(config.width, config.width, bias=False)

    def embed(self, uids: Tensor, shown: Tensor | None = None) -> Tensor:
        """Fused chunk slots, collapsed: [..., 1, D]."""
        return self._fused(self.uid(uids), self.code(self._slots(uids))).unsqueeze(-2)

    def item_vectors(self, shown: Tensor | None = None) -> Tensor:
        """The fused last slot of every UID [I + 1, D]."""
        return self._fused(self.uid.weight, self.code(self._slots()))

    def _fused(self, own: Tensor, codes: Tensor) -> Tensor:
        """Rows [..., D] and codes [..., L, D] -> [..., D]; with equal weights it is the sum."""
        asked = (codes @ self.ask(own).unsqueeze(-1)).squeeze(-1)  # [..., L]
        weights = self.config.levels * torch.softmax(asked, dim=-1)
        return own + (weights.unsqueeze(-1) * codes).sum(dim=-2)


LEVERS: dict[str, Callable[..., CAR]] = {
    "CAR as it is": CAR,
    "label smoothing 0.1": Smoothed,
    "UID rows start from texts": from_texts,
    "fusion by attention": Attending,
}


@app.command()
def main(
    data: Annotated[str, typer.Option(help="an Amazon 2014 set's folder")],
    epochs: int = 12,
    output: Path = OUTPUT,
) -> None:
    """Train with every lever, print the table, write the figures."""
    dataset = load_dataset(data)
    name = dataset.report["name"]
    catalogue = tokenize(dataset, EncoderSpec(), CodebookConfig(), CACHE / "vectors").catalogue
    histories = dataset.histories(catalogue.uids)
    recipe = parse_recipe({**settings_of("car", name), "epochs": epochs, "seed": SEED})
    runs = []
    for title, made in LEVERS.items():
        torch.manual_seed(SEED)
        codes = int(catalogue.sids.max()) + 1
        model = made(recipe.car(catalogue.size, catalogue.sids.shape[1], codes), *tables(catalogue))
        with tempfile.TemporaryDirectory(prefix="car-") as folder:
            curves = train(model, histories, recipe.budget(), Path(folder), title)
        runs.append({"lever": title, "valid": max(curves["valid_ndcg@10"])})
    found = {"machine": machine(), "data": name, "epochs": epochs, "runs": runs}
    output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for sheet in sheets(found):
        sheet.print()


def sheets(found: dict[str, Any]) -> list[Sheet]:
    """Quality against CAR as it is."""
    base = found["runs"][0]["valid"]
    rows = [[one["lever"], f"{one['valid']:.4f}", f"{one['valid'] / base - 1:+.1%}"] for one in found["runs"]]
    title = f"{found['data']}, {found['epochs']} epochs, one seed"
    return [Sheet(title, ["lever", "best validation NDCG@10", "against CAR"], rows)]


if __name__ == "__main__":
    app()
