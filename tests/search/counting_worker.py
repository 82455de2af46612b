"""A worker of a cluster that writes down what it embeds, and dies once where a file asks for it."""

import os
import signal
from pathlib import Path

from mmlesson.search import cluster


class CountingWorker(cluster.Worker):
    """Notes the pictures of each fragment in `<out>.counts`; the first to find `<out>.kill` is killed by it."""

    def embed(self, rows):
        beside = Path(self.work.out)
        try:
            beside.with_suffix(".kill").unlink()
        except FileNotFoundError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
        done = super().embed(rows)
        with open(beside.with_suffix(".counts"), "a") as file:
            file.write(f"{done.embedded}\n")
        return done
