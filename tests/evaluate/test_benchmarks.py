"""Benchmarks: their fields, prompts and splits, on tiny datasets in the layout that TFDS gives them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from mmjax.data.pipeline import Mixture
from mmjax.data.sources.tfds import Tfds
from mmjax.errors import UserError
from mmjax.evaluate.benchmarks import BENCHMARKS, benchmark
from mmjax.evaluate.evaluators.class_lists import class_list, template_list
from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.evaluators.zeroshot import ZeroShot
from mmjax.evaluate.model import evaluate_model
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.inference.embed_dataset import chosen
from tests.data.conftest import picture_bytes
from tests.data.datasets.test_esc50 import archive, offline  # noqa: F401 (a fixture)
from tests.data.datasets.test_without_tensorflow import write_commands
from tests.trained import Trained, tiny_config

F = tfds.features
PICTURES = {"cifar100": ("train", "test"), "imagenet_a": ("test",)}


def write(folder, name, features, examples, splits, config=None) -> None:
    """A dataset of that name on the disk, built by nobody's code: only the files tell what it is."""

    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, description="x")] if config else []
        pkg_dir_path = epath.Path(__file__).parent
        url_infos = {}

        def _info(self):
            return self.dataset_info_from_configs(features=F.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: enumerate(examples()) for split in splits}

        def _generate_examples(self):  # type: ignore[override]
            raise NotImplementedError

    Made.name = name
    Made(data_dir=str(folder), file_format="array_record", config=config).download_and_prepare()


def picture(i: int) -> io.BytesIO:
    return io.BytesIO(picture_bytes((40 * (i % 4), 60, 200 - 40 * (i % 4))))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("benchmarks")
    image = F.Image(shape=(None, None, 3), encoding_format="png")
    fine = F.ClassLabel(names=["apple", "aquarium_fish", "baby", "bear"])
    write(
        folder,
        "cifar100",
        {"id": F.Text(), "image": image, "label": fine, "coarse_label": F.ClassLabel(num_classes=20)},
        lambda: [{"id": str(i), "image": picture(i), "label": i % 4, "coarse_label": i % 2} for i in range(24)],
        PICTURES["cifar100"],
    )
    wnids = F.ClassLabel(names=[f"n{i:08}" for i in range(1000)])
    write(
        folder,
        "imagenet_a",
        {"image": image, "label": wnids, "file_name": F.Text()},
        lambda: [{"image": picture(i), "label": (6, 11, 999)[i % 3], "file_name": f"{i}.jpg"} for i in range(9)],
        PICTURES["imagenet_a"],
    )
    objects = F.Sequence({"bbox": F.BBoxFeature(), "label": F.ClassLabel(num_classes=80)})
    write(
        folder,
        "coco_captions",
        {
            "captions": F.Sequence({"id": np.int64, "text": F.Text()}),
            "image": image,
            "image/filename": F.Text(),
            "image/id": np.int64,
            "objects": objects,
        },
        lambda: [
            {
                "captions": [{"id": 10 * i + j, "text": f"a red disc {i} {j}"} for j in range(5 + i % 2)],
                "image": picture(i),
                "image/filename": f"{i}.jpg",
                "image/id": i,
                "objects": [{"bbox": F.BBox(0.0, 0.0, 1.0, 1.0), "label": 3}],
            }
            for i in range(6)
        ],
        ("test", "val"),
        config="2014",
    )
    write_commands(folder)
    return str(folder)


@pytest.fixture(scope="module")
def experiment(trained: Trained) -> Experiment:
    return build(tiny_config(trained.table))


def test_zero_shot_neighbours_and_a_probe_on_pictures(trained: Trained, data_dir, tmp_path):
    found = evaluate_model(trained.workdir, on="cifar100", data_dir=data_dir, json_path=tmp_path / "x.json")
    assert found.keys() == {"test"}
    metrics = found["test"]
    assert {name.split("/")[0] for name in metrics} == {"zeroshot", "knn", "probe"}
    assert metrics["knn/label/top1"] == 1  # the training split has the very same pictures
    assert metrics["probe/label/top1"] == 1
    assert 0 <= metrics["zeroshot/label/top1"] <= 1
    assert metrics["zeroshot/label/top5"] == 1  # four classes
    written = json.loads((tmp_path / "x.json").read_text())
    assert (written["on"], written["test"]) == ("cifar100", metrics)
    again = evaluate_model(trained.workdir, on="cifar100", data_dir=data_dir, evaluators=["knn"])
    assert {name.split("/")[0] for name in again["test"]} == {"knn"}


def test_imagenets_names_are_asked_for_the_classes_that_are_there(trained: Trained, data_dir, monkeypatch):
    asked: list[str] = []
    real = ZeroShot.__call__

    def heard(self, embedded, embed_text):
        return real(self, embedded, lambda strings: asked.extend(strings) or embed_text(strings))

    monkeypatch.setattr(ZeroShot, "__call__", heard)
    found = evaluate_model(trained.workdir, on="imagenet_a", data_dir=data_dir)
    names = [class_list("imagenet")[i] for i in (6, 11, 999)]
    assert asked == [template.format(name) for name in names for template in template_list("clip80")]
    assert found["test"]["zeroshot/label/top5"] == 1


def test_captions_of_coco_are_each_asked_for(trained: Trained, data_dir):
    found = evaluate_model(trained.workdir, on="coco_captions", data_dir=data_dir)["test"]
    assert {name.rpartition("/")[0] for name in found} == {"retrieval/image->text", "retrieval/text->image"}
    records: Any = BENCHMARKS["coco_captions"].source
    assert records.most * 6 == 30
    assert found["retrieval/text->image/R@10"] == 1  # six pictures: each is there once
    assert found["retrieval/image->text/median_rank"] >= 1


def test_embedding_a_benchmark_reads_its_fields_as_judging_it_does(experiment: Experiment, data_dir, monkeypatch):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", data_dir)
    mixture = chosen(experiment, "coco_captions", "test", None)
    assert mixture.sources["coco_captions"] == BENCHMARKS["coco_captions"].source  # a row a caption, and `of`
    assert list(mixture.transforms) == ["image", "text"]


def test_waveforms_without_a_header_reach_the_audio_tower(trained: Trained, data_dir):
    nearest = KNN("label", "test", k=1, modality="audio")
    asked = ["zeroshot", "probe", nearest]
    found = evaluate_model(trained.workdir, on="speech_commands", data_dir=data_dir, evaluators=asked)["test"]
    assert found["knn/label/top1"] == 1  # each sound is in the training split too, and words differ in pitch
    assert {"zeroshot/label/top1", "probe/label/top1"} <= found.keys()


def test_esc50_is_the_mean_over_its_folds(trained: Trained, tmp_path, offline):  # noqa: F811
    offline(archive(tmp_path))
    found = evaluate_model(trained.workdir, on="esc50", data_dir=str(tmp_path / "data"))["train"]
    for name in ("zeroshot", "knn", "probe"):
        folds = [found[f"{name}/label/top1/fold={fold}"] for fold in range(1, 6)]
        assert found[f"{name}/label/top1"] == pytest.approx(np.mean(folds))
    assert found["probe/label/top1"] == 1  # tones of three pitches


def test_a_table_of_ones_own_is_judged_by_the_experiments_evaluators(trained: Trained):
    own = evaluate_model(trained.workdir, split="test")
    assert evaluate_model(trained.workdir, on=trained.table, split="test") == own
    probe = Probe("shape", "test", strengths=(1e-3,))
    found = evaluate_model(trained.workdir, on=trained.table, evaluators=[probe, "zeroshot"])
    assert "probe/shape/top1" in found["test"]
    assert found["all"]["zeroshot/shape/examples"] == 120  # the whole table, not a split of it
    assert found["all"]["zeroshot/shape/classes"] == 4


def test_captions_in_a_column_of_another_name_are_looked_for(trained: Trained, tmp_path):
    table = Path(trained.table)
    lines = table.read_text(encoding="utf-8").splitlines()
    header = lines[0].split(",")
    columns = [header.index(name) for name in ("image", "text")]
    rows = [[line.split(",")[c] for c in columns] for line in lines[1:4]]
    own = tmp_path / "own.csv"
    own.write_text("\n".join(["image,caption", *(f"{table.parent / image},{text}" for image, text in rows)]))
    with pytest.raises(UserError, match=r"--label COLUMN \(caption\); if .* holds the captions, call it 'text' in the"):
        benchmark(str(own), build(tiny_config(trained.table, name="pair")))


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_names_a_dataset_with_its_splits_and_fields(name):
    """What can be known of it without its data: TFDS's or our code, where that needs no TensorFlow."""
    entry = BENCHMARKS[name]
    assert {e.name for e in entry.evaluators} & set(entry.default)
    given: Any = entry.source
    source = given if isinstance(given, Tfds) else given.source
    assert source.name == name
    from mmjax.data.datasets.prepare import NeedsTensorFlowError, builder

    try:
        features = builder(name).info.features
    except NeedsTensorFlowError:
        assert name in ("coco_captions", "speech_commands")
        return
    assert features is not None
    assert set(entry.modalities) <= set(features)
    assert all(getattr(e, "label", "") in features for e in entry.evaluators)
    classes = {e.classes for e in entry.evaluators if isinstance(e, ZeroShot)}
    if classes == {"imagenet"}:
        assert features["label"].num_classes == len(class_list("imagenet"))
        assert features["label"].names[:2] == ["n01440764", "n01443537"]  # tench, goldfish


def test_what_an_experiment_has_no_tower_for_is_left_out(experiment: Experiment, trained: Trained, tmp_path):
    pair = build(tiny_config(trained.table, name="pair"))
    with pytest.raises(UserError, match="esc50 has audio, but the experiment has towers for image, text"):
        benchmark("esc50", pair)
    found = benchmark("coco_captions", experiment, "/data")
    assert isinstance(found.data, Mixture)
    assert set(found.data.transforms) == {"image", "text"}
    assert found.data.sources["coco_captions"].source.data_dir == "/data"
    assert [type(e) for e in found.evaluators] == [Retrieval]
    assert [type(e) for e in benchmark("cifar100", experiment).evaluators] == [ZeroShot, KNN, Probe]
    with pytest.raises(UserError, match=r"--on 'cifar10', but the benchmarks are .*did you mean cifar100\?"):
        benchmark("cifar10", experiment)
    with pytest.raises(UserError, match="there is no table"):
        benchmark(str(tmp_path / "none.csv"), experiment)
