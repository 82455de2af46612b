"""Muon: an optimiser for the matrices of a transformer, whose steps are equally large in every direction.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon) replace the momentum of a matrix by the nearest orthogonal
matrix, with a few Newton-Schulz iterations. So directions in which the gradient is small are learned too. Liu et al.
2025, "Muon is Scalable for LLM Training", scale a step to the length of one of AdamW, so that both use the same
learning rate. torch and timm have Muon as well, in bfloat16. On a processor without bfloat16, that is six times
slower than float32 (measured on the machine that trained the pocket models).
"""

from __future__ import annotations

import torch
from torch import Tensor


class Muon(torch.optim.AdamW):
    """Muon for `matrices`, and AdamW for all other parameters, with the same learning rate.

    matrices   parameters of two dimensions
    others     all other parameters; they have no weight decay
    momentum   of Muon
    betas      of AdamW
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
                    state["step"] = torch.zeros(())  # AdamW expects it in every state
                    state["moving"] = torch.zeros_like(matrix)
                moving = state["moving"]
                moving.lerp_(matrix.grad, 1 - group["momentum"])
                ahead = matrix.grad.lerp(moving, group["momentum"])  # Nesterov momentum
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(orthogonal(ahead), alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)
                matrix.grad = None  # AdamW skips parameters without a gradient
        return super().step(closure)


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Nearly U Vᵀ of a matrix U S Vᵀ: float `[rows, columns]`, with singular values of 0.7…1.2 (quintic iteration)."""
    x = matrix / (matrix.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(iterations):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if wide else x.T
