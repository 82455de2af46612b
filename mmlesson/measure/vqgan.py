"""The measured quality of the pocket VQGAN, on held-out scenes alone: `mmlesson eval vqgan`.

Three questions. How far from the pixels are the reconstructions (`l1`, and on the object alone, where it is hard)? Does a
CLIP still recognise what they show? Is the whole codebook in use? Beside them, how well the patch discriminator tells
reconstructed patches from real ones: 0.5 would be a perfect decoder, or a blind discriminator.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor

from mmlesson import runtime, world
from mmlesson.clip import load_clip
from mmlesson.measure.clip import Bar, table
from mmlesson.pixels import to_images, to_pixels
from mmlesson.vqgan import VQGAN, load_vqgan, new_vqgan

BARS = {"l1": Bar(most=0.03), "recognised": Bar(least=0.95), "codebook_used": Bar(least=0.90)}
MEANINGS = {
    "l1": "mean absolute error of reconstructions, 0…1",
    "l1_object": "… of the objects' pixels only",
    "l1_background_only": "what a plain background would get",
    "recognised": "pocket CLIP's top-1 on reconstructions ÷ on the originals, one object",
    "codebook_used": "share of the codes that occur",
    "patch_auc": "the discriminator ranks a real patch above a reconstructed one",
}


def evaluate_vqgan(vqgan: VQGAN, clip, n: int = 2000) -> dict[str, float]:
    """The figures of MEANINGS on `n` held-out scenes, half of them with one object and half with two.

    vqgan: what `load_vqgan` returns; clip: what `load_clip` returns. `recognised` is measured on those with one object.
    """
    from sklearn.metrics import roc_auc_score

    single, pairs = (world.sample(n // 2, "heldout", seed=200 + objects, objects=objects) for objects in (1, 2))
    sums = torch.zeros(
        4, dtype=torch.float64
    )  # error, error on objects, error of a plain background, share that is object
    used = torch.zeros(len(vqgan.codebook), dtype=torch.bool)
    real, made, features = [], [], {"original": [], "reconstructed": []}
    for start in range(0, n // 2 * 2, 50):
        scenes = (single + pairs)[start : start + 50]
        pixels = to_pixels([scene.render(vqgan.config.image_size) for scene in scenes])  # [50, 3, side, side]
        with torch.no_grad():
            found = vqgan.quantise(vqgan.encode_pixels(pixels.to(vqgan.device)))
            again = vqgan.decode_latents(found.latents)
            real.append(vqgan.discriminator(pixels.to(vqgan.device)).flatten().cpu())
            made.append(vqgan.discriminator(again).flatten().cpu())
        again, background = again.cpu(), _background(scenes)
        used[found.codes.flatten().cpu()] = True
        error, plain = (again - pixels).abs().mean(1), (background - pixels).abs().mean(1)  # [50, side, side]
        object_here = plain > 0.02
        sums += torch.stack([part.double().sum() for part in (error, error * object_here, plain, object_here)])
        if start < len(single):
            features["original"].append(clip.encode_images(to_images(pixels)))
            features["reconstructed"].append(clip.encode_images(to_images(again)))
    patches = len(torch.cat(real))
    count = n // 2 * 2 * vqgan.config.image_size**2
    right = {name: _named(torch.cat(parts)[: len(single)], single, clip) for name, parts in features.items()}
    return {
        "l1": float(sums[0] / count),
        "l1_object": float(sums[1] / sums[3]),
        "l1_background_only": float(sums[2] / count),
        "recognised": right["reconstructed"] / right["original"],
        "codebook_used": used.float().mean().item(),
        "patch_auc": float(roc_auc_score([1] * patches + [0] * patches, torch.cat(real + made).numpy())),
    }


def _background(scenes) -> Tensor:
    """The plain colours behind scenes: float32 [n, 3, 1, 1] in 0…1."""
    colours = torch.tensor([world.BACKGROUNDS[scene.background] for scene in scenes], dtype=torch.float32)
    return (colours / 255)[:, :, None, None]


def _named(features: Tensor, scenes, clip) -> float:
    """Share of scenes whose object the CLIP names first among all concepts."""
    names = [concept.name for concept in world.concepts()]
    texts = clip.encode_texts([f"a picture of {concept}" for concept in world.concepts()])  # [597, dim]
    truth = torch.tensor([names.index(scene.concepts[0]) for scene in scenes])
    return ((features @ texts.T).argmax(1) == truth).float().mean().item()


def main(arguments) -> int:
    """`mmlesson eval vqgan`: a table, and with --json one flat JSON object as the last line."""
    runtime.set_threads()
    vqgan, clip = load_vqgan(arguments.model), load_clip("pocket-clip")
    fresh = new_vqgan(vqgan.config, seed=1).eval().requires_grad_(False).to(vqgan.device)
    figures, chance = evaluate_vqgan(vqgan, clip, arguments.n), evaluate_vqgan(fresh, clip, arguments.n)
    print(f"{vqgan.name} on {arguments.n} held-out scenes\n")
    print(table(figures, chance, BARS, MEANINGS))
    if arguments.json:
        numbers = {name: round(value, 4) for name, value in figures.items()}
        numbers |= {f"untrained_{name}": round(value, 4) for name, value in chance.items()}
        print(json.dumps(numbers))
    return 0
