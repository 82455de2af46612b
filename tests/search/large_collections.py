"""What the tests of large collections share: pictures, a server that speaks S3, and the rows of an index."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

COLUMNS = ("id", "path", "size", "modified", "sha256", "caption")


def write_pictures(folder: Path, n: int, damaged: int = 0) -> Path:
    """`n` small pictures that are all different, in folders; some have a caption, and some files are damaged."""
    for number in range(n):
        place = folder / ("below" if number % 3 == 0 else ".")
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (24, 16), (number * 7 % 256, number * 31 % 256, 90))
        picture.paste((255, 255, 0), (number % 20, 2, number % 20 + 4, 12))
        picture.save(place / f"{number:03}.png")
        if number % 5 == 0:
            (place / f"{number:03}.txt").write_text(f"picture number {number}")
    for number in range(damaged):
        (folder / f"{number:03}-damaged.jpg").write_bytes(b"no picture")
    return folder


def rows_of(index) -> list[dict]:
    return index._select(*COLUMNS).sort_by("id").to_pylist()


@pytest.fixture
def clip(small_model):
    return small_model


@pytest.fixture(scope="session")
def server():
    """The address of a server on this machine that speaks S3 (moto's), which this process and what it starts use."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    own = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    host, port = service.get_host_and_port()
    own["AWS_ENDPOINT_URL"] = own["AWS_ENDPOINT"] = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        yield own["AWS_ENDPOINT_URL"]
    service.stop()


@pytest.fixture
def bucket(server, request):
    """A bucket of its own for a test: its name, and the file system of fsspec."""
    import s3fs

    system = s3fs.S3FileSystem(use_listings_cache=False)
    name = f"test-{abs(hash(request.node.name)) % 10**10}-{os.getpid()}"
    system.mkdir(name)
    yield SimpleNamespace(name=name, system=system)
    system.rm(name, recursive=True)
