"""Image search: a collection of pictures, a sentence, and the pictures that fit it.

    index = ImageIndex.build("pictures/", clip)        # reads every picture once
    hits = index.search("a red apple", k=5)            # Hit(path, score, caption, image)

Every picture becomes a CLIP embedding of length 1, a row of one matrix. A query becomes another such vector. One
product of matrix and vector gives all cosines, and the largest win. That is all of exact search. The files:

    index         ImageIndex: build, update, search
    hits          what a search returns
    source        the pictures of a folder, of a list, of scenes
    synchronise   how an index follows its source
    store         the folder of an index: a LanceDB table of paths, captions and times
    vectors       the matrix of embeddings: a file that is mapped into memory
    filters       in SQL over paths, captions, sizes and times
    cells         the approximate index for hundreds of thousands of pictures
    quality       how well an index finds known answers

and for a collection that is too large for one machine:

    cluster       Ray: workers that embed, a driver that lists and commits
    collection    the pictures of a folder, a list or a table, one at a time; at an address too
    fragments     what a build leaves on the way: the plan, and what is embedded already
    commit        what is still to be done, and the one commit at the end
    remote        an index at an address, such as s3://bucket/index, and its copy in the cache
"""

from mmlesson.search.hits import Hit, Hits
from mmlesson.search.index import EXACT_UP_TO, PROBES, ImageIndex
from mmlesson.search.quality import Retrieval, evaluate_retrieval
from mmlesson.search.synchronise import Update

__all__ = ["EXACT_UP_TO", "PROBES", "Hit", "Hits", "ImageIndex", "Retrieval", "Update", "evaluate_retrieval"]
