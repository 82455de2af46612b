"""Run a command with the network cut off: python tests/without_network.py COMMAND [ARGUMENT ...]

On Linux the command runs in a network namespace of its own (`unshare -rn`), where only loopback is up: Jupyter
reaches its kernels, and nothing reaches the outside, whatever it is written in. Elsewhere, and where namespaces
are forbidden, every Python process under the command refuses to connect to anything but loopback (an audit hook
that PYTHONPATH brings in); programs not written in Python are not stopped there.

Before the command starts, a canary tries to connect to the outside. If it gets there the command is not run and
the exit status is 97. MMLESSON_CANARY="host:port" gives it one more place to try.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from mmlesson.teach.grading.offline import HOOK

NOT_CUT_OFF = 97
OUTSIDE = (("1.1.1.1", 443), ("8.8.8.8", 53), ("2606:4700:4700::1111", 443), ("example.org", 443))


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "--inside":  # the second start of this script, behind the wall
        return inside(arguments[1], arguments[2:])
    here = [sys.executable, os.path.abspath(__file__), "--inside"]
    if namespaces():
        os.execvp("unshare", ["unshare", "-rn", "--", *here, "namespace", *arguments])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(HOOK)
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        return subprocess.call([*here, "hook", *arguments], env={**os.environ, "PYTHONPATH": path})


def namespaces() -> bool:
    """Whether this machine lets us make a network namespace (MMLESSON_NO_NAMESPACE=1: say no)."""
    if os.environ.get("MMLESSON_NO_NAMESPACE") or not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0


def inside(wall: str, command: list[str]) -> int:
    if wall == "namespace":
        from mmlesson.teach.grading.walls import raise_loopback  # of Linux only

        raise_loopback()
    address = reached()
    if address:
        print(f"the network is not cut off: {address[0]} port {address[1]} was reached", file=sys.stderr)
        return NOT_CUT_OFF
    if wall == "namespace":
        os.execvp(command[0], command)
    return subprocess.call(command)


def reached() -> tuple[str, int] | None:
    """The first place outside that a connection gets to, None where there is none."""
    places = list(OUTSIDE)
    if os.environ.get("MMLESSON_CANARY"):
        host, port = os.environ["MMLESSON_CANARY"].rsplit(":", 1)
        places.insert(0, (host, int(port)))
    for place in places:
        try:
            socket.create_connection(place, timeout=3).close()
        except OSError:
            continue
        return place
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
