"""Published numbers: whose they are, and that they stand beside those measured: on the screen, in JSON, on the page."""

import json
import re

import pytest

from mmjax.cli.main import main
from mmjax.evaluate import published
from mmjax.evaluate.benchmarks import BENCHMARKS
from mmjax.interop import hub
from mmjax.interop.open_clip import names as open_clip_names
from tests.evaluate.test_benchmarks import F, picture, write
from tests.interop.hub_stand_in import Hub, serving
from tests.interop.small import open_clip_folder

pytest.importorskip("huggingface_hub")

COMMIT = "a" * 40
B32 = "open_clip:ViT-B-32/openai"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("open_clip:ViT-B-32/openai", B32),
        ("open_clip:ViT-B-32-quickgelu/openai", B32),
        ("hf:openai/clip-vit-base-patch32", B32),
        (f"hf:openai/clip-vit-base-patch32@{COMMIT}", B32),
        ("hf:timm/vit_base_patch32_clip_224.openai@main", B32),
        ("open_clip:ViT-B-32/LAION2B-s34b-b79k", "open_clip:ViT-B-32/laion2b_s34b_b79k"),
        ("hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip:ViT-B-32/laion2b_s34b_b79k"),
        ("bv:gs://big_vision/siglip/webli_en_b16_224_63724782.npz@7", "open_clip:ViT-B-16-SigLIP/webli"),
        ("hf:google/siglip-base-patch16-224", "open_clip:ViT-B-16-SigLIP/webli"),
        ("hf:google/siglip-base-patch16-2240", None),
        ("hf:openai/clip-vit-base-patch32x", None),
        ("open_clip:ViT-B-32/metaclip_400m", None),
        ("open_clip:ViT-B-32/none", None),
        ("runs/clip", None),
    ],
)
def test_a_name_means_the_model_whose_weights_it_has(name, model):
    assert published.model_of(name) == model


def test_every_line_is_of_a_model_that_loads_and_a_number_that_its_benchmark_gives():
    lines = published.every()
    assert len({(line.model, line.benchmark, line.split, line.metric) for line in lines}) == len(lines) > 400
    for line in lines:
        open_clip_names.repository_of(hub.parsed(line.model).place)
        name, _, rest = line.metric.partition("/")
        (evaluator,) = (e for e in BENCHMARKS[line.benchmark].evaluators if e.name == name and e.split == line.split)
        if name == "zeroshot":
            assert rest in (f"{evaluator.classifies}/top1", f"{evaluator.classifies}/recall")
        else:
            assert re.fullmatch(r"(image->text|text->image)/R@(1|5|10)", rest)
        assert 0 < line.value < 1
        assert line.source
    for names in published.ALSO.values():
        assert all(hub.parsed(name) for name in names)
    assert published.ALSO.keys() <= {line.model for line in lines}


@pytest.mark.parametrize(
    ("model", "percent"),
    [
        *(("RN50/openai", 59.8), ("RN50x4/openai", 66.3), ("RN50x16/openai", 70.7), ("RN50x64/openai", 73.9)),
        *(("ViT-B-32/openai", 63.3), ("ViT-B-16/openai", 68.3), ("ViT-L-14/openai", 75.5)),
        ("ViT-L-14-336/openai", 76.6),
        *(("ViT-B-32/laion400m_e32", 62.9), ("ViT-B-16/laion400m_e32", 67.1), ("ViT-L-14/laion400m_e32", 72.8)),
        *(("ViT-B-32/laion2b_s34b_b79k", 66.6), ("RN50/cc12m", 36.45), ("RN50/yfcc15m", 32.7)),
        *(("ViT-B-16-SigLIP/webli", 76.0), ("ViT-B-16-SigLIP-256/webli", 76.5), ("ViT-B-16-SigLIP-512/webli", 79.1)),
        *(("ViT-L-16-SigLIP-256/webli", 80.5), ("ViT-L-16-SigLIP-384/webli", 82.1)),
        *(("ViT-SO400M-14-SigLIP/webli", 82.0), ("ViT-SO400M-14-SigLIP-384/webli", 83.1)),
    ],
)
def test_imagenets_numbers_are_those_known(model, percent):
    """Read elsewhere (open_clip's page of its models, cards): to half a digit of what is told there."""
    (line,) = (x for x in published.every() if x.model == f"open_clip:{model}" and x.benchmark == "imagenet2012")
    assert 100 * line.value == pytest.approx(percent, abs=0.06)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub on this machine that has a small model under the name of a big one, and a small CIFAR-100."""
    classes = F.ClassLabel(names=["apple", "aquarium_fish", "baby", "bear"])
    features = {"image": F.Image(shape=(None, None, 3), encoding_format="png"), "label": classes}
    write(
        tmp_path / "data",
        "cifar100",
        features,
        lambda: [{"image": picture(i), "label": i % 4} for i in range(8)],
        ("train", "test"),
    )
    stand_in = Hub()
    folder = open_clip_folder(tmp_path / "model", 3)
    for repository in ("timm/vit_base_patch32_clip_224.openai", "somebody/clip"):
        stand_in.add(repository, COMMIT, folder, "main")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(stand_in) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield tmp_path


def test_what_is_published_stands_beside_what_is_measured(served, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    where = ["--on", "cifar100", "--data-dir", str(served / "data"), "--json", str(served / "x.json")]
    asked = ["--evaluators", "zeroshot", "knn", "--report", str(served / "x.html")]
    assert main(["evaluate", f"{B32}@main", *where, *asked]) == 0
    said, told = capsys.readouterr().out, json.loads((served / "x.json").read_text())
    measured = told["test"]["zeroshot/label/top1"]
    assert told["published"]["model"] == f"{B32}@{COMMIT}"
    (row,) = told["published"]["numbers"]  # of top1 alone: nothing is published of the others
    assert row == {
        "split": "test",
        "metric": "zeroshot/label/top1",
        "measured": measured,
        "published": 0.6423,
        "difference": pytest.approx(measured - 0.6423),
        "source": "open_clip docs/openclip_results.csv",
    }
    assert f"cifar100 by {B32}@{COMMIT}, beside what is published\n" in said
    cells = re.search(r"zeroshot/label/top1\W+([\d.]+)\W+([\d.]+)\W+?([+-][\d.]+)\W+open_clip docs/openclip_res", said)
    assert cells is not None
    assert cells.groups() == (f"{measured:.4f}", "0.6423", f"{measured - 0.6423:+.4f}")
    html = (served / "x.html").read_text()
    shares = "".join(f"<td>{text}</td>" for text in ("test", *cells.groups(), "open_clip docs/openclip_results.csv"))
    assert f'<th scope="row">zeroshot/label/top1</th>{shares}' in html
    # The same weights under a name of which nothing is published.
    assert main(["evaluate", "hf:somebody/clip", *where, *asked]) == 0
    assert "published" not in capsys.readouterr().out
    assert "published" not in json.loads((served / "x.json").read_text())
    assert 'id="published"' in html
    assert 'id="published"' not in (served / "x.html").read_text()


def test_numbers_of_another_split_or_of_other_prompts_are_not_compared():
    zeroshot = BENCHMARKS["cifar100"].evaluators[0]
    results = {"test": {"zeroshot/label/top1": 0.5}, "train": {"zeroshot/label/top1": 0.6}}
    assert [row["measured"] for row in published.beside(B32, "cifar100", results, [zeroshot])] == [0.5]
    assert not published.beside(B32, "cifar100", results, [])  # one that asks otherwise is none of the benchmark's
    assert not published.beside(B32, "cifar100", {"train": results["train"]}, [zeroshot])
    assert not published.beside(B32, "photos.csv", results, [zeroshot])


def test_the_listing_gives_the_command_of_each_number(capsys, tmp_path):
    path = tmp_path / "x.json"
    assert main(["evaluate", "--published", "hf:openai/clip-vit-base-patch32", "--json", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()
    command = "mmjax evaluate hf:openai/clip-vit-base-patch32 --on imagenet2012 --evaluators zeroshot"
    assert re.fullmatch(rf"0\.6332  zeroshot/label/top1 +{command}", said[0])
    rows = json.loads(path.read_text())
    assert len(rows) == len(said) - 1 == 13
    assert [row["command"] for row in rows] == [line[line.index("mmjax") :] for line in said[:-1]]
    assert main(["evaluate", "--published", "--on", "coco_captions"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6 * 33 + 1
    assert main(["evaluate", "--published", "hf:openai/clip-vit-base-patch31"]) == 2
    assert "did you mean hf:openai/clip-vit-base-patch32" in capsys.readouterr().err
    assert main(["evaluate", "--published", "--on", "imagenet_w2"]) == 2
    assert "did you mean imagenet_v2" in capsys.readouterr().err
    assert main(["evaluate", "--published", "--split", "test"]) == 2
    assert "leave out --split" in capsys.readouterr().err
    assert main(["evaluate"]) == 2
    assert "what is to be judged?" in capsys.readouterr().err
