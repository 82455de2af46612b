"""How much a picture is like those that a CLIP learned from: statistics that are kept beside its weights.

An embedding says what a picture shows, and leaves out how it is made: a photograph of a cat and a drawing of a cat
should come out near to each other. An early layer still tells them apart. Its channels answer to edges, flat areas,
textures and noise. So this looks at the mean and the spread of each channel of such a layer over a picture. Over many
pictures of the kind that the CLIP learned from, these numbers have a mean and a covariance. The distance of a new
picture from that mean, measured in the spread of the kind (Mahalanobis), is small for pictures of the kind and large
for others (Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial
Attacks", arxiv.org/abs/1807.03888).

Two numbers turn a distance into a probability. They come from a logistic regression on the logarithm of the distances
of held-out pictures of the kind, and of pictures of another kind.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from mmlesson import gates
from mmlesson.models import reading

STATISTICS = "familiar.safetensors"
LAYER = "familiar.json"  # which layer they are of
UNFAMILIAR = 0.4  # below it a picture is taken for one of another kind
EPSILON = 1e-3  # of the mean variance: a direction in which the pictures hardly differ would count without limit


class Familiarity(nn.Module):
    """What is known of the pictures that a CLIP learned from.

    layer       the name of the module of the CLIP whose `c` channels are looked at, such as "visual.layer1"
    mean        of the features of many pictures of the kind, float32 [2 c]
    whiten      float32 [2 c, 2 c]; after it these features have the same spread in all directions
    line        a and b: a picture at distance d is of the kind with the probability sigmoid(a + b log d); float32 [2]
    """

    def __init__(self, layer: str, width: int):
        super().__init__()
        self.layer = layer
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whiten", torch.zeros(width, width))
        self.register_buffer("line", torch.zeros(2))

    def forward(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """How probable it is that pictures are of the kind: float32 [n], 0…1.

        model: the CLIP; inputs: normalised pixels [n, 3, image_size, image_size].
        """
        distances = self.distances(features(model, self.layer, inputs))
        return torch.sigmoid(self.line[0] + self.line[1] * distances.log())

    def distances(self, found: Tensor) -> Tensor:
        """Of features [n, 2 c] from the mean of the kind: [n]."""
        return ((found - self.mean) @ self.whiten).norm(dim=1)

    def save(self, folder: Path) -> None:
        """Writes two files beside the weights."""
        from safetensors.torch import save_file

        tensors = self.state_dict() | {"whiten": self.whiten.half()}
        gates.write_atomically(folder / STATISTICS, lambda path: save_file(tensors, path, {"format": "pt"}))
        gates.write_atomically(folder / LAYER, (json.dumps({"layer": self.layer}) + "\n").encode())


@torch.no_grad()
def features(model: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """The mean and the standard deviation of each channel of a layer over each picture: float32 [n, 2 c]."""
    kept = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output.float().cpu()))
    try:
        model.visual(inputs)
    finally:
        hook.remove()
    [hidden_states] = kept  # [n, c, h, w]
    return torch.cat([hidden_states.mean((2, 3)), hidden_states.std((2, 3))], dim=1)


def fit(layer: str, learned: Tensor, held_out: Tensor, others: Tensor) -> Familiarity:
    """The statistics of a kind of pictures.

    learned, held_out: the features of different pictures of the kind, float32 [n, 2 c] each, with n several times 2 c;
    others: those of pictures of another kind.
    """
    from sklearn.linear_model import LogisticRegression

    familiarity = Familiarity(layer, learned.shape[1])
    covariance = torch.cov(learned.T.double())
    covariance += EPSILON * covariance.diagonal().mean() * torch.eye(len(covariance))
    values, directions = torch.linalg.eigh(covariance)
    familiarity.mean = learned.mean(0)
    familiarity.whiten = (directions * values.rsqrt()).half().float().contiguous()  # as it comes back from the file
    distances = familiarity.distances(torch.cat([held_out, others])).log()
    is_own = torch.arange(len(distances)) < len(held_out)
    # each kind counts half, however many pictures there are of it
    found = LogisticRegression(class_weight="balanced").fit(distances[:, None].numpy(), is_own.numpy())
    familiarity.line = torch.tensor([found.intercept_[0], found.coef_[0, 0]], dtype=torch.float32)
    return familiarity


def read(folder: Path, model: nn.Module) -> Familiarity | None:
    """The statistics in a model folder; None where there are none.

    Raises AssetError where they are damaged, or belong to another model.
    """
    if not (folder / LAYER).exists():
        return None
    layer = reading.read_object(folder / LAYER).get("layer")
    shapes = reading.read_shapes(folder / STATISTICS)
    try:
        [width] = shapes["mean"][1]
        side = model.visual.image_size  # a number, or (height, width) where timm's tower says it
        grey = torch.zeros(1, 3, *((side, side) if isinstance(side, int) else side))
        if features(model, layer, grey).shape != (1, width):
            raise ValueError(f"{layer} has another number of channels")
    except (KeyError, AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise gates.AssetError(
            f"{folder / STATISTICS} is damaged, or belongs to another model: {reading.AGAIN}."
        ) from error
    with reading.no_more_than(shapes):
        familiarity = Familiarity(layer, width)
    reading.fill(familiarity, folder / STATISTICS, "statistics of familiar pictures")
    return familiarity
