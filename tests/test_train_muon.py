"""Muon: its matrices are orthogonal, it does what torch's does, and it leaves the rest to AdamW."""

import pytest
import torch

from mmlesson.train.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 24), (16, 64), (64, 16)])
def test_all_directions_become_as_large(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    sizes = torch.linalg.svdvals(orthogonal(matrix))
    assert sizes.min() > 0.3 and sizes.max() < 1.25
    assert torch.cosine_similarity(orthogonal(matrix).flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_it_moves_as_torchs_own():
    """In bfloat16, which torch's works in, to a hundredth of the length of a step."""
    generator = torch.Generator().manual_seed(1)
    start, gradients = torch.randn(12, 30, generator=generator), torch.randn(4, 12, 30, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    peer = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    own = Muon([ours], [torch.nn.Parameter(torch.zeros(1))], lr=0.02, weight_decay=0.1)
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        own.step()
        peer.step()
    assert (ours - theirs).norm() < 0.03 * (theirs - start).norm()


def test_the_rest_is_adamws():
    vectors = [torch.nn.Parameter(torch.ones(5)) for _ in range(2)]
    own = Muon([torch.nn.Parameter(torch.eye(3))], [vectors[0]], lr=0.1)
    peer = torch.optim.AdamW([vectors[1]], lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(3):
        for vector in vectors:
            vector.grad = torch.linspace(-1, 1, 5) + step
        own.step()
        peer.step()
    assert torch.equal(*vectors)
