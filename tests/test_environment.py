"""The environment that the tests run in: the lists of versions agree, nothing is undeclared, the wall holds."""

import ast
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
ENVIRONMENT = (ROOT / "environment.yml").read_text()


def direct() -> dict[str, Requirement]:
    """What pyproject.toml asks for by name, the tests' own included."""
    lines = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def pins(text: str, bullet: str = "") -> dict[str, str]:
    found = re.findall(rf"^\s*{bullet}([\w.-]+)(?:\[\w+\])?==(\S+)$", text, re.MULTILINE)
    versions = {canonicalize_name(name): version for name, version in found}
    assert len(versions) == len(found), "a name stands there twice"
    return versions


# --------------------------------------------------------------------------------- the lists of versions


def test_constraints_are_names_and_versions_only():
    lines = [line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert not re.search(r"://|http:|https:|@ |--index|--find-links|--hash", CONSTRAINTS + ENVIRONMENT)


def test_constraints_leave_to_torch_what_exists_on_one_system_only():
    assert [name for name in pins(CONSTRAINTS) if re.match(r"nvidia-|cuda-|triton|pywin|colorama|appnope", name)] == []


def test_every_direct_dependency_is_pinned_at_a_version_that_it_allows():
    pinned = pins(CONSTRAINTS)
    assert sorted(direct().keys() - pinned.keys()) == []
    for name, requirement in direct().items():
        assert requirement.specifier.contains(pinned[name]), f"{requirement} does not allow {pinned[name]}"
        assert any(part.operator in (">=", "==", "~=") for part in requirement.specifier), (
            f"{requirement} has no lower bound"
        )


def test_conda_installs_the_same_versions():
    pinned = pins(CONSTRAINTS)
    assert pins(ENVIRONMENT, bullet="- ") == {name: pinned[name] for name in direct()}
    assert "- --constraint constraints.txt" in ENVIRONMENT and "- --editable ." in ENVIRONMENT
    [version] = re.findall(r"^  - python=(\S+)$", ENVIRONMENT, re.MULTILINE)
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


def test_what_is_installed_is_what_is_pinned():
    """So every other test speaks about the pinned versions, and nothing that is needed lacks a pin."""
    needed, todo = {}, list(direct().values())
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), tuple(sorted(requirement.extras))
        if key in needed:
            continue
        found = needed[key] = importlib.metadata.distribution(requirement.name)
        for line in found.requires or []:
            further = Requirement(line)
            extras = requirement.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(further)
    installed = {name: found.version.split("+")[0] for (name, _), found in needed.items()}
    theirs = re.compile(r"nvidia-|cuda-|triton")  # what torch pins itself
    installed = {name: version for name, version in installed.items() if not theirs.match(name)}
    pinned = pins(CONSTRAINTS)
    assert {name: version for name, version in installed.items() if pinned.get(name) != version} == {}


def test_every_imported_package_is_declared():
    owners = importlib.metadata.packages_distributions()
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + [line for name, lines in extras.items() if name != "test" for line in lines]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    undeclared = {}
    for path in sorted((ROOT / "mmlesson").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"mmlesson"}:
                if not declared & {canonicalize_name(owner) for owner in owners.get(name, [])}:
                    undeclared[name] = path.name
    assert undeclared == {}


# --------------------------------------------------------------------------------------------- the wall


@pytest.fixture
def listener():
    """The port of a server on this machine's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            try:
                while True:
                    server.accept()[0].close()
            except OSError:
                pass  # the server was closed

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)"


def run(command, **environment):
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_nothing_behind_the_wall_reaches_the_outside(without_network):
    for host in ("1.1.1.1", "example.org"):
        done = run(without_network([sys.executable, "-c", CONNECT, host, "443"]))
        assert done.returncode == 1 and "rror" in done.stderr, done  # OSError, gaierror


def test_loopback_works_behind_the_wall(without_network):
    own = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname())
print("met")
"""
    done = run(without_network([sys.executable, "-c", own]))
    assert (done.returncode, done.stdout) == (0, "met\n"), done


@pytest.mark.parametrize("names", ["127.0.0.1", "localhost"])
def test_the_canary_cries_where_the_wall_has_a_hole(without_network, listener, names):
    """The wall without namespaces lets loopback through: behind it the canary reaches a server put there."""
    done = run(
        without_network([sys.executable, "-c", "print('ran')"]),
        MMLESSON_NO_NAMESPACE="1",
        MMLESSON_CANARY=f"{names}:{listener}",
    )
    assert done.returncode == 97
    assert "the network is not cut off" in done.stderr and "ran" not in done.stdout


@pytest.mark.parametrize("host", ["1.1.1.1", "example.org", "::ffff:8.8.8.8"])
def test_the_wall_without_namespaces_names_what_was_tried(without_network, host):
    command = without_network([sys.executable, "-c", CONNECT, host, "443"])
    done = run(command, MMLESSON_NO_NAMESPACE="1")
    assert done.returncode == 1 and f"something tried to reach {host}" in done.stderr, done


def test_a_namespace_does_not_even_reach_this_machine(without_network, listener):
    import without_network as tool

    behind = run(
        without_network([sys.executable, "-c", CONNECT, "127.0.0.1", str(listener)]),
        MMLESSON_CANARY=f"127.0.0.1:{listener}",
    )
    if tool.namespaces():
        assert behind.returncode == 1 and "ConnectionRefusedError" in behind.stderr, behind
    else:  # then the wall is the hook's, which lets loopback through, and the canary says so
        assert behind.returncode == 97, behind


# ------------------------------------------------------------------------------------------------- CI

# without the plugins, which take seconds to start and whose markers are then unknown
ANOTHER_PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:warnings"]


def our_conftest(folder: Path) -> None:
    """Our conftest.py, for tests of another kind: without the CLIPs that it brings, which take seconds to import."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "small_clips.py").touch()


OTHERS_TESTS = """
import pytest

def test_passes(): pass

def test_skips(): pytest.skip("not today")

@pytest.mark.skip(reason="never")
def test_marked(): pass

@pytest.mark.xfail(reason="known")
def test_known(): assert False
"""


@pytest.mark.parametrize(
    "ci, closing", [("true", "1 failed, 1 passed, 1 xfailed, 2 errors"), ("", "1 passed, 3 skipped, 1 xfailed")]
)
def test_a_skipped_test_fails_in_ci(tmp_path, ci, closing):
    our_conftest(tmp_path)
    (tmp_path / "test_others.py").write_text(OTHERS_TESTS)
    (tmp_path / "test_whole_file.py").write_text("import pytest\npytest.importorskip('a_package_that_is_not_there')\n")
    done = run(
        [*ANOTHER_PYTEST, "--continue-on-collection-errors", tmp_path], CI=ci, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"
    )
    assert closing in done.stdout, done.stdout
    assert (done.returncode != 0) == bool(ci)
    assert ("skipped, which CI does not allow: " in done.stdout) == bool(ci)


@pytest.mark.parametrize("ci, processes", [("true", 0), ("", 0), ("", 2)])
def test_without_a_browser_its_tests_are_left_out_but_not_in_ci(tmp_path, ci, processes):
    our_conftest(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = browser: needs one\n")
    (tmp_path / "test_page.py").write_text(
        "import pytest\n@pytest.mark.browser\ndef test_page(browser_path): pass\ndef test_other(): pass\n"
    )
    empty = tmp_path / "bin"
    empty.mkdir()
    several = ["-p", "xdist.plugin", "-n", str(processes)] if processes else []
    done = run([*ANOTHER_PYTEST, *several, tmp_path], CI=ci, PATH=str(empty), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    if ci:
        assert "1 passed, 1 error" in done.stdout and "This test needs a browser" in done.stdout, done.stdout
    elif sys.platform == "linux":
        assert "1 tests that need a browser were left out" in done.stdout, done.stdout
        assert ("1 passed" if processes else "1 passed, 1 deselected") in done.stdout, done.stdout


FOUR_TESTS = """
import os, pytest

@pytest.fixture(scope="module")
def made(): return os.environ["MMLESSON_CACHE"]

@pytest.mark.parametrize("x", range(4))
def test_other(x, made, record_property):
    record_property("note", f"note {__name__} {os.getpid()} {os.environ['OMP_NUM_THREADS']} {made}")
"""


def test_several_processes_take_whole_files_and_share_one_cache(tmp_path):
    our_conftest(tmp_path)
    for name in ("test_a.py", "test_b.py", "test_measure_c.py", "test_d.py"):
        (tmp_path / name).write_text(FOUR_TESTS)
    several = ["-p", "xdist.plugin", "-n", "2", "--no-loadscope-reorder"]
    own = {"MMLESSON_TEST_CACHE": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = run([*ANOTHER_PYTEST, *several, tmp_path], **own)
    assert "16 passed" in done.stdout, done.stdout
    notes = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("note ")]
    assert len(notes) == 16 and {threads for _, _, threads, _ in notes} == {"1"}, done.stdout
    assert len({cache for *_, cache in notes}) == 1, done.stdout
    assert len({(file, process) for file, process, *_ in notes}) == 4, "a file is a matter of one process"
    [slow] = {process for file, process, *_ in notes if file == "test_measure_c"}
    assert [file for file, process, *_ in notes if process == slow][:4] == ["test_measure_c"] * 4, (
        "slow files come first"
    )
