"""Python kept off the network where the system offers no wall: it refuses to connect to anything but this machine.

`HOOK` is the source of a sitecustomize.py: put its folder first in PYTHONPATH. It stops mistakes, and no attacker: a
program that is not Python, or Python through ctypes, does not ask it.
"""

HOOK = """
import errno, ipaddress, sys

def _inside(host):
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError:
        return False  # a name: looking it up would ask the network

def _refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a socket of this machine
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _inside(host):
        raise OSError(errno.ENETUNREACH, f"the network is cut off, and something tried to reach {host}")

sys.addaudithook(_refuse)
"""
