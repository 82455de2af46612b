"""The measured quality of the pocket VQGAN, on held-out scenes: `mmlesson eval vqgan`.

Three questions. How far are the reconstructions from the pixels (`l1`; `l1_object` on the objects, where it is hard)?
Does a CLIP still recognise what they show? Does it use the whole codebook? `patch_auc` says how well the patch
discriminator tells reconstructed patches from real ones: 0.5 would be a perfect decoder, or a blind discriminator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmlesson import runtime, world
from mmlesson.clip import CLIP, POCKET, load_clip
from mmlesson.measure.namer import Namer, share
from mmlesson.measure.report import Report
from mmlesson.pixels import to_images, to_pixels
from mmlesson.vqgan import VQGAN, load_vqgan, new_vqgan


def evaluate_vqgan(vqgan: VQGAN, clip: CLIP, n: int = 2000) -> dict[str, float]:
    """The figures of "eval vqgan" in bars.py on `n` held-out scenes, half of them with one object and half with two.

    vqgan: what `load_vqgan` returns. clip: what `load_clip` returns. `recognised` is measured on the scenes with one
    object. n: an even number, at least 2. Raises ValueError otherwise.
    """
    from sklearn.metrics import roc_auc_score

    if n < 2 or n % 2:
        raise ValueError(f"n is the number of scenes, half of them of one object: an even number, not {n}.")
    single, pairs = (world.sample(n // 2, "heldout", seed=200 + objects, objects=objects) for objects in (1, 2))
    # four sums over pixels: the error, the error on objects, the error of a plain background, the pixels of objects
    sums = torch.zeros(4, dtype=torch.float64)
    used = torch.zeros(len(vqgan.codebook), dtype=torch.bool)
    real, made, features = [], [], {"original": [], "reconstructed": []}
    for start in range(0, n, 50):
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
    count = n * vqgan.config.image_size**2
    namer, concepts = Namer(clip), [scene.concepts[0] for scene in single]
    right = {
        name: share(namer.concept_ranks(torch.cat(parts)[: len(single)], concepts) == 1)
        for name, parts in features.items()
    }
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


def report(options) -> Report:
    """`mmlesson eval vqgan`, with `options.n` scenes."""
    runtime.set_threads()
    vqgan, clip = load_vqgan(options.model), load_clip(POCKET)
    fresh = new_vqgan(vqgan.config, seed=1).eval().requires_grad_(False).to(vqgan.device)
    figures, chance = evaluate_vqgan(vqgan, clip, options.n), evaluate_vqgan(fresh, clip, options.n)
    return Report("eval vqgan", f"{vqgan.name} on {options.n} held-out scenes", figures, {"untrained": chance})
