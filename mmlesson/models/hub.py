"""Files of the Hugging Face hub: from its cache, or else downloaded into it.

Everything that needs the hub asks here. Without a network one sentence says which file is missing. The callers name the
files, and they name only safetensors and configs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path

from mmlesson.gates import AssetError
from mmlesson.models import assets


def hub_file(
    repository: str, candidates: Sequence[str], name: str, ways_out: Iterable[str], revision: str | None = None
) -> Path:
    """The first of the files that the repository has: from the hub's cache, else downloaded into it.

    repository   "organisation/model"
    candidates   paths in it, the likeliest first; while one of them is in the cache, the network is not asked
    name         what the learner asked for; the error messages say it
    ways_out     what a learner can do without a network, each an imperative without a full stop
    revision     a branch or a commit; None: the main branch

    Raises ValueError where there is no such repository, AssetError where it has none of the files, or where they are
    not on this machine and cannot be fetched.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    missing = f"{candidates[0]} of {repository}, which {name} needs,"
    try:
        for file in candidates:
            cached = try_to_load_from_cache(repository, file, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
        if assets.is_offline():
            raise assets.offline_error(missing, ways_out)
        for file in candidates:
            # one question first, and not for long: the download itself would retry for half a minute
            url = hf_hub_url(repository, file, revision=revision)
            try:
                answer_within(6, lambda url=url: get_hf_file_metadata(url, timeout=4))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
            try:
                return Path(hf_hub_download(repository, file, revision=revision))
            except OSError as error:
                raise AssetError(
                    f"{file} of {repository} was not downloaded whole ({error}): load it again to go on."
                ) from error
    except HFValidationError:
        raise ValueError(
            f"{repository!r} is not the name of a repository on the hub: it is organisation/model."
        ) from None
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"The hub has no open repository {repository!r}, which {name} needs: check the name."
        ) from error
    except AssetError:
        raise
    except Exception as error:  # no route, no name server, a proxy, a firewall, a full disk: all end here
        raise assets.offline_error(missing, ways_out) from error
    raise AssetError(
        f"The hub's {repository} has none of {', '.join(candidates)}: the course loads no other kind of weights, "
        "because a pickle can run any code when it is opened."
    )


def answer_within(seconds: float, question: Callable):
    """The answer to question(), or TimeoutError: looking up a host's name has no time limit of its own."""
    answer: Future = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer.result(timeout=seconds)
