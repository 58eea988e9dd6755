"""Other ways to make SIDs, for the ablation only: what residual k-means is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vector_quantize_pytorch import ResidualVQ


def lsh_sids(vectors: np.ndarray, levels: int, codes: int, seed: int = 0) -> np.ndarray:
    """SIDs int32 [N, levels] by random hyperplanes through the mean: log2(codes) bits a level.

    Args:
        vectors: [N, dim].

    Raises:
        ValueError: `codes` is no power of two.
    """
    bits = codes.bit_length() - 1
    if codes != 1 << bits:
        raise ValueError(f"LSH needs a power of two of codes a level, not {codes}.")
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    planes = np.random.default_rng(seed).normal(size=(vectors.shape[1], levels * bits))
    sides = (centred @ planes > 0).reshape(len(vectors), levels, bits)
    return (sides @ (1 << np.arange(bits))).astype(np.int32)


@dataclass(frozen=True)
class RQVAEConfig:
    """TIGER's sizes (arXiv 2305.05065, section 4.2): layers 512, 256, 128 and a latent of 32; beta 0.25."""

    hidden: tuple[int, ...] = (512, 256, 128)
    latent: int = 32
    commitment: float = 0.25
    warmup: int = (
        20  # epochs of the autoencoder alone, so that k-means starts from latents that mean something
    )
    epochs: int = 200
    batch_size: int = 1024
    learning_rate: float = 1e-3
    decay: float = 0.95  # of the codebooks' moving averages
    dead: float = 0.5  # a code with less than this share of a batch's items, in items, is drawn anew


def rqvae_sids(
    vectors: np.ndarray, levels: int, codes: int, seed: int = 0, config: RQVAEConfig | None = None
) -> np.ndarray:
    """SIDs int32 [N, levels] by an autoencoder whose latent is residually quantised, trained together.

    Codebooks follow their items by moving averages (`vector_quantize_pytorch`), start from k-means, and
    codes without items are drawn anew.

    Args:
        vectors: [N, dim].
    """
    config = config or RQVAEConfig()
    x = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
    x = (x - x.mean(dim=0)) / x.std()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _RQVAE(x.shape[1], levels, codes, config)
        model.fit(x)
        return model.sids(x)


class _RQVAE(nn.Module):
    def __init__(self, dim: int, levels: int, codes: int, config: RQVAEConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (dim, *config.hidden, config.latent)
        self.encoder, self.decoder = _mlp(sizes), _mlp(sizes[::-1])
        self.quantiser = ResidualVQ(
            dim=config.latent,
            num_quantizers=levels,
            codebook_size=codes,
            kmeans_init=True,
            kmeans_iters=20,
            commitment_weight=config.commitment,
            threshold_ema_dead_code=config.dead,
            decay=config.decay,
        )

    def fit(self, x: Tensor) -> None:
        """Train on vectors [N, dim]: the autoencoder alone, then with its codebooks."""
        config = self.config
        optimizer = torch.optim.AdamW(self.parameters(), lr=config.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
        for epoch in range(config.epochs):
            if epoch == config.warmup:
                with torch.no_grad():
                    self.quantiser(self.encoder(x))  # k-means over all latents, not over one batch's
            for rows in torch.randperm(len(x)).split(config.batch_size):
                loss = self._loss(x[rows], quantised=epoch >= config.warmup)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            schedule.step()

    def _loss(self, x: Tensor, quantised: bool) -> Tensor:
        latent = self.encoder(x)
        if not quantised:
            return F.mse_loss(self.decoder(latent), x)
        read, _, commitment = self.quantiser(latent)
        return F.mse_loss(self.decoder(read), x) + commitment.sum()

    @torch.no_grad()
    def sids(self, x: Tensor) -> np.ndarray:
        """Codes int32 [N, levels] of vectors [N, dim]."""
        self.eval()
        return self.quantiser(self.encoder(x))[1].numpy().astype(np.int32)


def _mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
