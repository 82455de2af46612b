"""mmlesson: four lessons on CLIP, image search, VQGAN+CLIP and DALL-E, and the package they import.

    from mmlesson import ImageIndex, load_clip, load_dalle, load_guide, load_vqgan, paint, world

    clip = load_clip()                       # the pocket model, no network
    clip.classify(images, ["a cat", "a dog"])
    ImageIndex.build("pictures/", clip).search("a red apple", k=5)
    paint("a cat on a blue background", load_guide(), load_vqgan()).finish().image
    load_vqgan().decode(load_dalle().generate("a cat on a blue background", n=8, seed=0))

Every name below is imported when it is first used (PEP 562), so that `import mmlesson` costs
milliseconds and brings in neither torch nor open_clip nor numpy.
"""

import importlib

# name -> (the module it lives in, the name there; None for the module itself)
_LAZY = {
    "load_clip": ("mmlesson.clip", "load_clip"),
    "load_guide": ("mmlesson.clip", "load_guide"),
    "load_judge": ("mmlesson.clip", "load_judge"),
    "load_vqgan": ("mmlesson.vqgan", "load_vqgan"),
    "load_dalle": ("mmlesson.dalle", "load_dalle"),
    "paint": ("mmlesson.painter", "paint"),
    "ImageIndex": ("mmlesson.search", "ImageIndex"),
    "check": ("mmlesson.teach.exercises", "check"),
    "progress": ("mmlesson.teach.exercises", "progress"),
    "quiz": ("mmlesson.teach.quizzes", "quiz"),
    "world": ("mmlesson.world", None),
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str):
    if name == "__version__":
        value = _version()
    elif name in _LAZY:
        module, attribute = _LAZY[name]
        value = importlib.import_module(module)
        if attribute is not None:
            value = getattr(value, attribute)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata  # costs more than everything else in this file

    try:
        return metadata.version("mmlesson")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"  # a checkout on PYTHONPATH
