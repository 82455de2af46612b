"""A process behind walls, without root and without Docker: namespaces of Linux, as bubblewrap uses them.

    unshare -r --net --ipc --uts --pid --fork --mount --kill-child -- python -I walls.py CONFIG

makes the namespaces, and this script builds the walls inside them and then starts the command of CONFIG (JSON):

- a root of its own: the system's programs and libraries, Python and the course, all read-only; /tmp, with the folder of
  the work, is of memory, with a limit; nothing else of the machine is there, neither home folders nor /run nor disks;
- a network of its own, in which only loopback is up; processes of its own, which all die with the first one;
- no capabilities, no way to get any, and no namespaces below these; limits of memory, files and processes.

It imports nothing but the standard library: it runs before the course can be found.
"""

import ctypes
import json
import os
import platform
import resource
import shutil
import socket
import struct
import sys
from pathlib import Path

SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "opt")
ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts", "hosts", "localtime", "nsswitch.conf")
ETC += ("passwd", "group", "ssl", "mime.types")
THREADS = 900  # more than one kernel and its libraries start; threads count as processes here
DEVICES = ("null", "zero", "full", "random", "urandom")

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 8, 4096, 16384, 1 << 18, 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, AT_RECURSIVE, AT_FDCWD = 1, 2, 4, 0x8000, -100
SYS_MOUNT_SETATTR = 442
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 24, 28, 38
NO_ROOT_RIGHTS = 0xEF  # securebits, locked: user 0 is nobody special, and no capability is ever raised

libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    arguments = (each.encode() for each in (source, str(target), kind))
    _checked(libc.mount(*arguments, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def set_attributes(target: Path, attributes: int, recursive: bool = False, clear: int = 0) -> None:
    """mount_setattr(2), Linux 5.12: it keeps the other flags that each mount has."""
    wanted = struct.pack("QQQQ", attributes, clear, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    done = libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, str(target).encode(), flags, wanted, len(wanted))
    _checked(done, f"mount_setattr {target}")


def bind(source: Path, root: Path) -> None:
    """Show a file or a folder of the machine at the same place below `root`."""
    target = root / source.relative_to("/")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(str(source), target, "none", MS_BIND | MS_REC)


def build(config: dict) -> None:
    """The new root, and the old one gone."""
    root = Path(config["root"])
    mount("none", Path("/"), "none", MS_REC | MS_PRIVATE)  # nothing that is mounted here is seen outside
    mount("tmpfs", root, "tmpfs", MS_NOSUID, "size=16m,mode=755")
    (root / "tmp").mkdir()  # first, because Python itself may lie in /tmp
    mount("tmpfs", root / "tmp", "tmpfs", MS_NOSUID, f"size={int(config['disk'])},mode=1777,nr_inodes=100000")
    for path in (*(Path("/", name) for name in SYSTEM), *(Path("/etc", name) for name in ETC)):
        if path.is_symlink() and path.parent == Path("/"):
            (root / path.name).symlink_to(os.readlink(path))
        elif path.exists():
            bind(path, root)
    for path in map(Path, config["visible"]):
        if path.exists() and not (root / path.relative_to("/")).exists():
            bind(path, root)
    for name in ("proc", "dev", "sys/devices/system/cpu"):
        (root / name).mkdir(parents=True, exist_ok=True)
    if os.path.isdir("/sys/devices/system/cpu"):  # where libraries of mathematics look for the number of cores
        mount("/sys/devices/system/cpu", root / "sys/devices/system/cpu", "none", MS_BIND)
    set_attributes(root, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, recursive=True)
    set_attributes(root / "tmp", 0, clear=ATTR_RDONLY)

    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    (root / "proc/sys/user/max_user_namespaces").write_text("0")
    release = [int(part) for part in platform.release().split("-")[0].split(".")[:2]]
    if release >= [6, 14]:  # since then each namespace has a limit of its own, and it holds for root too
        (root / "proc/sys/kernel/pid_max").write_text(str(int(config["processes"]) + THREADS))
    set_attributes(root / "proc", ATTR_RDONLY)  # the machine's settings stand there too
    mount("tmpfs", root / "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=1m,mode=755")
    for name in DEVICES:
        (root / "dev" / name).touch()
        mount(f"/dev/{name}", root / "dev" / name, "none", MS_BIND)
    for name, to in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (root / "dev" / name).symlink_to(to)
    (root / "dev/shm").mkdir()
    mount("tmpfs", root / "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "size=256m,mode=1777")
    shutil.copytree(config["work"], root / "tmp/work")
    for source, target in config["copies"]:
        (root / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / target.lstrip("/"))

    os.chdir(root)
    number = SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"no walls are known for a processor {platform.machine()}")
    _checked(libc.syscall(number, b".", b"."), "pivot_root")
    _checked(libc.umount2(b".", MNT_DETACH), "umount the old root")


def raise_loopback() -> None:
    """`ip link set lo up`, where there may be no `ip`."""
    import fcntl

    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket, get_flags, request), 16)[0]
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", flags | up))


def limit(memory: int, disk: int, processes: int) -> None:
    """Limits of this process and of each one that it starts. They also hold where there are no walls."""
    os.nice(10)  # whoever watches it comes first
    for kind, most in (
        (resource.RLIMIT_DATA, memory),  # and not RLIMIT_AS: torch maps libraries larger than what it uses of them
        (resource.RLIMIT_FSIZE, disk),
        (resource.RLIMIT_NPROC, processes + THREADS),  # Linux does not hold root to it: `running.py` counts as well
        (resource.RLIMIT_NOFILE, 4096),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def give_up_rights() -> None:
    _checked(libc.prctl(PR_SET_SECUREBITS, NO_ROOT_RIGHTS, 0, 0, 0), "securebits")
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # the kernel knows no more of them
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def main(config: dict) -> None:
    raise_loopback()
    build(config)
    os.chdir("/tmp/work")
    limit(config["memory"], config["disk"], config["processes"])
    give_up_rights()
    os.execve(config["command"][0], config["command"], config["environment"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
