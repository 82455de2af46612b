"""Muon: an optimiser for the matrices of a transformer, whose steps are as large in every direction.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon): the momentum of a matrix is replaced by the nearest orthogonal one, by a few Newton-Schulz
iterations, so that directions which the gradient hardly shows are learned too. Liu et al. 2025, "Muon is Scalable for LLM Training": scaled so that
a step is as long as one of AdamW, whose learning rate then serves both. torch and timm have it as well, in bfloat16, which is six times slower than
float32 where the processor does not know it (measured on the machine that trained the pocket models).
"""

from __future__ import annotations

import torch
from torch import Tensor


class Muon(torch.optim.AdamW):
    """AdamW for all parameters but `matrices`, which Muon moves at the same learning rate.

    matrices, others   parameters; those of `matrices` have two dimensions
    momentum           of Muon; `betas` are AdamW's
    """

    def __init__(
        self,
        matrices,
        others,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
    ):
        groups = [
            {"params": list(matrices), "momentum": momentum},
            {"params": list(others), "weight_decay": 0.0, "momentum": None},
        ]
        super().__init__(groups, lr=lr, betas=betas, eps=1e-8, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            if group["momentum"] is None:
                continue
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state |= {
                        "step": torch.zeros(()),
                        "moving": torch.zeros_like(matrix),
                    }  # AdamW asks every state for its step
                moving = state["moving"]
                moving.lerp_(matrix.grad, 1 - group["momentum"])
                ahead = matrix.grad.lerp(moving, group["momentum"])  # Nesterov's
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(orthogonal(ahead), alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)
                matrix.grad = None  # AdamW leaves alone what has none
        return super().step(closure)


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Nearly U Vᵀ of a matrix U S Vᵀ, float `[rows, columns]`: its singular values come to between 0.7 and 1.2, by the quintic iteration of Jordan et al."""
    x = matrix / (matrix.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(iterations):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if wide else x.T
