"""Every figure that the course measures: what it means, and the bar that it has to reach. The one list of bars.

A name may be a pattern: `photo_rank_*` stands for the figures of all photographs. The first line that fits counts.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

SIGNS = ("≥", "≤", ">")


@dataclass(frozen=True)
class Bar:
    """What a figure has to reach: `Bar("≥", 0.95)`. The sign is one of SIGNS."""

    sign: str
    limit: float

    def __post_init__(self):
        if self.sign not in SIGNS:
            raise ValueError(f"A bar's sign is one of {' '.join(SIGNS)}, not {self.sign!r}.")

    def met(self, value: float) -> bool:
        """Whether a value reaches the bar. A value that is not a number does not."""
        if self.sign == "≥":
            return value >= self.limit
        if self.sign == "≤":
            return value <= self.limit
        return value > self.limit

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}"


@dataclass(frozen=True)
class Known:
    """What is known of a figure before it is measured."""

    meaning: str
    bar: Bar | None = None
    form: str = ".3f"  # how its value is written


def at_least(limit: float) -> Bar:
    return Bar("≥", limit)


def at_most(limit: float) -> Bar:
    return Bar("≤", limit)


def above(limit: float) -> Bar:
    return Bar(">", limit)


_CLIP = {
    "zero_shot_top1": "one object: its name comes first among all 597",
    "background_top1": "one object: the name of its background comes first among 12",
    "retrieval_r1": "two objects: the caption finds its picture first",
    "word_order": "two objects: the true caption scores above the swapped one",
}

FIGURES: dict[str, dict[str, Known]] = {
    "eval clip": {
        "zero_shot_top1": Known(_CLIP["zero_shot_top1"], at_least(0.95)),
        "background_top1": Known(_CLIP["background_top1"], at_least(0.98)),
        "retrieval_r1": Known(_CLIP["retrieval_r1"], at_least(0.90)),
        "word_order": Known(_CLIP["word_order"], at_least(0.90)),
        "paraphrase_r1": Known("the same retrieval with wordings that no training used"),
        "paraphrase_drop": Known("what those wordings cost", at_most(0.05)),
        "photo_rank_*": Known("the rank of a photograph's label among 20", form=".0f"),
    },
    "eval judge": {
        "zero_shot_top1": Known(_CLIP["zero_shot_top1"], at_least(0.95)),
        "background_top1": Known(_CLIP["background_top1"]),
        "retrieval_r1": Known(_CLIP["retrieval_r1"]),
        "word_order": Known(_CLIP["word_order"], at_least(0.95)),
    },
    "eval search": {
        "recall_at_1": Known("canonical captions: the right picture comes first", at_least(0.85)),
        "recall_at_5": Known("… is among the first five"),
        "recall_at_10": Known("… is among the first ten"),
        "mrr": Known("the mean of 1 / rank", at_least(0.90)),
        "median_rank": Known("the median rank of the right picture", form=".1f"),
        "paraphrase_recall_at_1": Known("recall_at_1 with six wordings that no training used"),
        "paraphrase_mrr": Known("mrr with the same wordings"),
        "min_score": Known("the calibrated cosine below which nothing counts as a hit"),
        "no_answer_false_hits": Known("no picture fits, and the search returns a hit", at_most(0.05)),
        "answer_misses": Known("the right picture is there, and the search returns no hit", at_most(0.10)),
        "half_absent_false_hits": Known("one of two things is in no picture, and the search returns a hit"),
        "approximate_recall_at_10": Known("sentences: the share of exact search's ten that it finds", at_least(0.95)),
        "approximate_recall_by_picture": Known("… with pictures as queries"),
    },
    "eval vqgan": {
        "l1": Known("the mean absolute error of reconstructions, 0…1", at_most(0.03)),
        "l1_object": Known("… of the objects' pixels only"),
        "l1_background_only": Known("… of a plain background"),
        "recognised": Known(
            "one object: the pocket CLIP's top-1 on reconstructions, divided by its top-1 on the originals",
            at_least(0.95),
        ),
        "codebook_used": Known("the share of codes that occur", at_least(0.90)),
        "patch_auc": Known("how often the discriminator ranks a real patch above a reconstructed one"),
    },
    "eval paint": {
        "named": Known("the judge names the object first, and the picture has its outline"),
        "judge_top1": Known("the judge names the object first among all 597 concepts", at_least(0.50)),
        "judge_top5": Known("… among its first five"),
        "judge_background": Known("the judge names the background first among 12", at_least(0.90)),
        "seconds": Known("seconds for one picture, the median", at_most(30), ".1f"),
        "original_named": Known("named, of scenes of the prompts"),
        "original_top1": Known("the same judge on these scenes"),
        "original_background": Known("… their backgrounds"),
        "ceiling_named": Known("named, of VQGAN reconstructions of these scenes"),
        "ceiling_top1": Known("the same judge on these reconstructions"),
        "ceiling_background": Known("… their backgrounds"),
        "restored_codes": Known(
            "codes that the prior restores from a clarity of 0.3 (beside it: the nearest rows of the codebook)"
        ),
        "half_finished_top1": Known(
            "the guide names the object in such restored pictures (beside it: the pocket CLIP)"
        ),
        "random_codes": Known("judge_top1 of decoded random codes"),
    },
    "eval dalle": {
        "object_top1": Known("one object: the judge names it first among all 597 concepts", at_least(0.80)),
        "background_top1": Known("… names its background first among 12", at_least(0.95)),
        "pair_top1": Known("two objects: the caption beats the swapped one and 50 others", at_least(0.50)),
        "reranked_top1": Known("object_top1 of the best of 8, chosen by the pocket CLIP"),
        "rerank_gain": Known("reranked_top1 minus object_top1", above(0)),
        "ceiling_object_top1": Known("the same judge on VQGAN reconstructions of scenes of the prompts"),
        "ceiling_background_top1": Known("… their backgrounds"),
        "ceiling_pair_top1": Known("… of two objects"),
        "copies": Known("pictures that are nearer to a training scene than 95 % of those are to each other"),
    },
    "bench clip": {
        "ratio": Known(
            "times as fast as the loop of open_clip's README, the median of the rounds", at_least(1.5), ".2f"
        ),
        "min_cosine": Known(
            "the lowest cosine of our embedding and its embedding of one picture", at_least(0.999), ".4f"
        ),
        "classify_ms": Known("milliseconds for one picture against three new labels, the median", at_most(20), ".1f"),
        "classify_same_labels_ms": Known("… against three labels that were asked before", form=".1f"),
        "import_s": Known("seconds that `import mmlesson` adds to starting Python", at_most(0.1), ".3f"),
        "images_per_second": Known("pictures a second, ours", form=".0f"),
        "peer_images_per_second": Known("pictures a second, the loop of open_clip's README", form=".0f"),
        "images": Known("JPEG files of 640×480 pixels", form=".0f"),
        "rounds": Known("rounds in which the two took turns", form=".0f"),
    },
    "bench search": {
        "same_content_cosine": Known("the mean cosine of two drawings of one caption"),
        "vs_faiss": Known("time of faiss-cpu's IndexFlatIP over ours, exact top-10 of 100,000", at_least(1), ".2f"),
        "vs_sklearn": Known(
            "time of scikit-learn's brute-force neighbours (the faster of two metrics) over ours", at_least(1), ".2f"
        ),
        "exact_ms": Known("milliseconds for one exact search of 100,000, ours", form=".1f"),
        "faiss_ms": Known("… faiss-cpu", form=".1f"),
        "sklearn_ms": Known("… scikit-learn", form=".1f"),
        "same_answers_as_faiss": Known("the share of queries with the same ten answers in the same order"),
        "open_s": Known("seconds to open an index of 100,000", at_most(1), ".2f"),
        "folder_overhead": Known(
            "indexing 2,000 JPEG files: seconds beyond embedding them, as a share of these", at_most(0.10)
        ),
        "update_unchanged_s": Known("seconds for `update()` of 10,000 files that have not changed", at_most(1), ".2f"),
        "memory_more_files_gb": Known(
            "GB that four times as many files (2,000 instead of 500) add to the peak", form=".2f"
        ),
        "memory_larger_batch_gb": Known("GB that batches of 512 instead of 64 add to the peak", form=".2f"),
        "disk_ratio": Known("bytes of the largest index on disk over the bytes of its vectors", at_most(2), ".2f"),
    },
    "bench scale": {
        "overhead": Known("Ray on one worker: its time over that of a build by one process", at_most(1.25), ".2f"),
        "speedup": Known("pictures a second of two workers of one core over those of one", at_least(1.7), ".2f"),
        "vs_peer": Known(
            "the time of clip-retrieval's way (embeddings to files, then faiss) over that of Ray on one worker",
            form=".2f",
        ),
        "largest_difference": Known(
            "the largest difference of a number in an embedding, one process and two workers", at_most(1e-5), ".1g"
        ),
        "local_images_per_second": Known("pictures a second, one process on one core", form=".0f"),
        "ray_images_per_second": Known("… Ray, one worker, from its first fragment to its last", form=".0f"),
        "two_workers_images_per_second": Known("… Ray, two workers", form=".0f"),
        "worker_start_s": Known("seconds until Ray's worker begins", form=".1f"),
        "peer_images_per_second": Known("… clip-retrieval's way, on one core", form=".0f"),
        "images": Known("JPEG files of 640×480 pixels", form=".0f"),
        "driver_memory_growth": Known(
            "the driver's own memory with 100,000 pictures over that with 10,000", at_most(1.1), ".2f"
        ),
        "driver_memory_*_gb": Known("GB of the driver's own memory, with so many pictures", form=".2f"),
        "recall_at_10": Known("of exact search's ten, the share that approximate search finds", at_least(0.95)),
        "peer_query_ms": Known("milliseconds for one query of 1,000,000 vectors, faiss's inverted file", form=".1f"),
        "peer_recall_at_10": Known("… its recall@10, with as many cells, of which it visits as many"),
        "peer_cells_s": Known("… seconds to make it", form=".0f"),
    },
    "bench paint": {
        "ratio": Known("times the steps a second of the plain loop, the median of the rounds", at_least(1.5), ".2f"),
        "ratio_undealt": Known("… where each of our towers sees as many cutouts as the plain loop's", form=".2f"),
        "steps_per_second": Known("steps a second, ours without a prior", form=".1f"),
        "peer_steps_per_second": Known("steps a second, the plain loop", form=".1f"),
        "with_prior_steps_per_second": Known(
            "steps a second, ours as it paints by default, with the prior", form=".1f"
        ),
        "cutouts": Known("cutouts a step", form=".0f"),
        "steps": Known("steps of each painting", form=".0f"),
        "rounds": Known("rounds in which the two took turns", form=".0f"),
    },
    "bench dalle": {
        "sixteen_pictures_seconds": Known(
            "seconds for 16 pictures of one prompt, decoding included", at_most(6), ".2f"
        ),
        "vs_no_cache": Known("times as many tokens a second as without the cache", at_least(3), ".1f"),
        "vs_transformers": Known(
            "times as many tokens a second as `transformers`' own `generate`", at_least(1.3), ".2f"
        ),
        "tokens_per_second": Known("tokens a second, ours", form=".0f"),
        "no_cache_tokens_per_second": Known(
            "tokens a second, ours when it reads the whole stream for every code", form=".0f"
        ),
        "transformers_tokens_per_second": Known(
            "tokens a second, a GPT-2 of `transformers` with the same weights", form=".0f"
        ),
        "rounds": Known("rounds in which the three took turns", form=".0f"),
    },
    "bench lessons": {
        "all_lessons_seconds": Known("seconds for all lessons together", at_most(600), ".0f"),
        "*_slowest_cell": Known("the number of its slowest cell, as in In [n]", form=".0f"),
        "*_slowest_cell_seconds": Known("seconds of its slowest cell", at_most(60), ".0f"),
        "*_peak_memory_gb": Known("peak memory of the kernel, in GB", at_most(3), ".1f"),
        "03_vqgan_clip_seconds": Known("seconds from the start of the kernel to the end", at_most(200), ".0f"),
        "04_dalle_seconds": Known("seconds from the start of the kernel to the end", at_most(120), ".0f"),
        "*_seconds": Known("seconds from the start of the kernel to the end", at_most(150), ".0f"),
    },
    "eval photos": {
        "caption_r1": Known("the first caption of each test picture finds it first", at_least(0.24)),
        "caption_r10": Known("… among the first ten", at_least(0.64)),
        "pictures_r10": Known("a test picture finds one of its captions among the first ten", at_least(0.64)),
        "names_top1": Known("a picture's name comes first among all names, zero-shot", at_least(0.55)),
        "names_top5": Known("… among the first five", at_least(0.80)),
        "unseen_names": Known("names that no training caption and no name of the classifier held", form=".0f"),
        "unseen_names_top1": Known("… a picture of one of them: its name comes first among all names"),
        "everyday": Known("photographs that packages bring, of 18: their label first among 30", at_least(14), ".0f"),
        "cat_dog_person": Known("pictures of a cat, a dog or a person alone: which of the three", at_least(0.93)),
        "cat_dog_person_pictures": Known("… so many pictures", form=".0f"),
        "nothing_false_hits": Known("queries for a theme that was taken out: something passes", at_most(0.10)),
        "nothing_misses": Known("the same queries where the theme is there: nothing passes", at_most(0.25)),
        "unfamiliar_own": Known("test photographs that the photo CLIP calls unfamiliar", at_most(0.05)),
        "unfamiliar_other": Known("… held-out scenes of the pocket world", at_least(0.90)),
        "unfamiliar_named": Known("… photographs of another collection, the named folders"),
        "unfamiliar_own_of_pocket": Known("held-out scenes that the pocket CLIP calls unfamiliar", at_most(0.05)),
        "unfamiliar_other_of_pocket": Known("… test photographs", at_least(0.90)),
    },
}


def known(part: str, name: str) -> Known:
    """The line of a figure of a part ("eval clip"). Raises KeyError where the list has none."""
    for pattern, line in FIGURES[part].items():
        if fnmatch.fnmatchcase(name, pattern):
            return line
    raise KeyError(f"{part} measures {name}, which measure/bars.py does not list: add a line with its meaning.")


def bars(part: str) -> dict[str, Bar]:
    """The bars of a part by the names (or patterns) of their figures."""
    return {name: line.bar for name, line in FIGURES[part].items() if line.bar is not None}
