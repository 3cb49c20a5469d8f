"""No text names a place on the net as ours: there is none. What it names of others stands in a list here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OTHERS = (  # what the texts may name: nobody takes it for ours
    "astral.sh/uv/install.sh",  # uv's own way to be installed
    "github.com/karolpiczak/ESC-50",
    "github.com/mlfoundations/datacomp",
    "github.com/mlfoundations/open_clip",
    "github.com/onnx/onnx",
    "github.com/openai/CLIP",
    "metadata.google.internal",
    "openmoji.org",
    "status.cloud.google.com",
    "storage.googleapis.com",
    "tuxpaint.org",
    "www.apache.org/licenses",
)
ADDRESS = re.compile(
    r"(?:https?://|git@)([\w.-]+\.[a-z]+[\w./-]*)"
    r"|((?:github|gitlab|bitbucket|huggingface)\.(?:com|org|co)/[\w.-]+/[\w.-]+)"
)
HOST = "github.com"


def texts() -> dict[str, str]:
    """All that git would take, by its name."""
    found = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = found.stdout.split("\0")[:-1]
    if not names:  # a copy without git
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file() and ".venv" not in p.parts[0]]
    read = {}
    for name in names:
        try:
            read[name] = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):  # a picture; a file that was deleted
            continue
    return read


def places(text: str) -> list[str]:
    return [(host or path).rstrip(".") for host, path in ADDRESS.findall(text)]


def test_every_place_on_the_net_is_one_of_others():
    found = {(name, place) for name, text in texts().items() for place in places(text)}
    assert len(found) > 10  # they are seen at all
    ours = re.compile(r"(?!example\.).*mmjax")  # example.org and its like are nobody's
    made_up = {(name, place) for name, place in found if name.startswith("tests/") and not ours.match(place)}
    assert {(name, place) for name, place in found - made_up if not place.startswith(OTHERS)} == set()


@pytest.mark.parametrize("name", ["evaluate.ipynb", "pretrain.ipynb"])
def test_a_notebook_installs_from_where_its_reader_says(name):
    book = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))
    first = next("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code")
    assert re.search(r'^MMJAX_SOURCE = ""', first, re.MULTILINE)
    assert places(first) == []


def test_the_package_has_no_address_of_ours():
    """Its home page would be a stranger's."""
    said = """import sys, setuptools
setuptools.setup = lambda **told: print(sorted(set(told) & {"url", "download_url", "project_urls", "author_email"}))
exec(compile(open("setup.py").read(), "setup.py", "exec"), {"__file__": "setup.py"})"""
    done = subprocess.run([sys.executable, "-c", said], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[x](https://{HOST}/mmjax/mmjax/blob/main/a.ipynb)", [f"{HOST}/mmjax/mmjax/blob/main/a.ipynb"]),
        (f"pip install git+ssh://git@{HOST}/mmjax/mmjax", [f"{HOST}/mmjax/mmjax"]),
        (f"see {HOST}/mmjax/mmjax.", [f"{HOST}/mmjax/mmjax"]),
        ("mmjax train gs://bucket", []),
    ],
)
def test_places_are_seen(text, expected):
    assert places(text) == expected
