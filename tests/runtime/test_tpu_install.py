"""What is run on each host of a slice: makes an environment of a Python that is new enough, the image's or uv's."""

import os
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "mmjax" / "runtime" / "tpu" / "install.sh"
OLD = '#!/bin/bash\nif [ "$1" = --version ]; then echo Python 3.10.12; exit; fi\nexit 1\n'
MAKES = """mkdir -p "$into/bin"
printf '#!/bin/bash\\necho "$@" >>~/pip.log\\n%s\\n' "$PIP_DOES" >"$into/bin/pip"
cp "$0" "$into/bin/python"; chmod +x "$into"/bin/*
"""
NEW = f'#!/bin/bash\n[ "$1" = -m ] || exit 0\ninto=$3\n{MAKES}'
WITHOUT_PIP = '#!/bin/bash\n[ "$1" = -m ] || exit 0\nmkdir -p "$3/bin"; touch "$3/bin/python"; exit 1\n'  # Debian's
UV = f'#!/bin/bash\necho "$@" >>~/uv.log\ninto="${{@: -1}}"\n{MAKES}'
BRINGS_UV = '#!/bin/bash\n[ "$2" = pip ] || exit 1\nmkdir -p ~/.local/bin; cp ~/hidden/uv ~/.local/bin/uv\n'


@pytest.fixture
def host(tmp_path):
    """A host's home as it is after the files were copied, and `bin`, all of its programs that matter."""
    for folder in ("bin", "hidden"):
        (tmp_path / folder).mkdir()
    (tmp_path / "run.sh").write_text("echo run\n")
    (tmp_path / "setup.py").write_text("")
    with tarfile.open(tmp_path / "checkout.tgz", "w:gz") as archive:
        archive.add(tmp_path / "setup.py", "setup.py")
    programs = {name: OLD for name in ("python3.13", "python3.12", "python3.11", "python3")}
    has(tmp_path, **programs, curl="#!/bin/bash\nexit 6\n")
    return tmp_path


def has(host, **programs: str) -> None:
    for name, text in programs.items():
        path = host / ("hidden" if name == "hidden_uv" else "bin") / name.removeprefix("hidden_")
        path.write_text(text)
        path.chmod(0o755)


def install(host, pip: str = "") -> subprocess.CompletedProcess[str]:
    env = {"HOME": str(host), "PATH": f"{host / 'bin'}:/usr/bin:/bin", "PIP_DOES": pip}
    command = ["bash", str(SCRIPT), "mmjax-tpu"]
    return subprocess.run(command, cwd=host, env=env, capture_output=True, text=True, timeout=60, check=False)


def installed(host) -> str:
    return (host / "pip.log").read_text()


def test_the_images_python_where_it_is_new_enough(host):
    has(host, **{"python3.12": NEW})
    assert install(host).returncode == 0
    assert installed(host) == "install -q -e .[tpu]\n"
    assert (host / "mmjax-tpu" / "run.sh").read_text() == "echo run\n"
    assert not (host / "uv.log").exists()


@pytest.mark.parametrize("image", [OLD, WITHOUT_PIP])
def test_uv_brings_one_where_the_images_is_old_or_makes_no_environments(host, image):
    has(host, uv=UV, python3=image)
    done = install(host)
    assert done.returncode == 0, done.stderr
    assert (host / "uv.log").read_text() == "venv -q --seed --python 3.12 .venv\n"
    assert installed(host) == "install -q -e .[tpu]\n"


def test_pip_or_its_own_installer_bring_uv(host):
    has(host, python3=BRINGS_UV, hidden_uv=UV)
    assert install(host).returncode == 0
    assert (host / "uv.log").exists()
    (host / "uv.log").unlink()
    os.rename(host / ".local", host / "gone")
    subprocess.run(["rm", "-rf", str(host / "mmjax-tpu")], check=True)
    has(host, python3=OLD, curl="#!/bin/bash\necho 'mkdir -p ~/.local/bin; cp ~/hidden/uv ~/.local/bin/uv'\n")
    assert install(host).returncode == 0
    assert (host / "uv.log").exists()


def test_no_python_at_all_is_an_end_of_its_own(host):
    done = install(host)
    assert done.returncode == 64
    assert "mmjax needs a Python of 3.11 or newer; the image has Python 3.10.12" in done.stderr
    assert "choose a newer --runtime" in done.stderr


@pytest.mark.parametrize(
    ("pip", "code"),
    [
        ("echo 'ERROR: No matching distribution found for jax>=99' >&2; exit 1", 65),
        ("echo 'OSError: [Errno 28] No space left on device'; exit 2", 65),
        ("echo 'Read timed out'; exit 1", 1),
    ],
)
def test_what_would_fail_again_is_told_from_what_passes(host, pip, code):
    has(host, python3=NEW)
    assert install(host, pip).returncode == code


def test_it_can_be_run_again_after_a_failure_and_ends_what_was_left(host):
    has(host, python3=NEW)
    assert install(host, "exit 1").returncode == 1
    left = subprocess.Popen(["setsid", "sleep", "60"], cwd=host)
    reaped = threading.Thread(target=left.wait)  # as a host's first process does
    reaped.start()
    (host / "mmjax-tpu" / "pid").write_text(f"{left.pid}\n")
    (host / "mmjax-tpu" / "exit").write_text("1\n")
    subprocess.run(["rm", "-rf", str(host / "mmjax-tpu" / ".venv")], check=True)
    assert install(host).returncode == 0
    reaped.join(timeout=10)
    assert left.returncode == -15
    assert not (host / "mmjax-tpu" / "exit").exists()
    assert (host / "mmjax-tpu" / "run.sh").exists()
