"""A run goes on with the data that it began with, or is told that it is another."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmjax.data.pipeline import Mixture, Prepared
from mmjax.data.sources.contract import Records, Source
from mmjax.data.sources.documents import Documents
from mmjax.data.sources.every_caption import EveryCaption
from mmjax.data.sources.folder import Folder
from mmjax.data.transforms.contract import Spec
from mmjax.data.transforms.image_input import PictureInput
from mmjax.data.transforms.record import CopyInput
from mmjax.data.transforms.text_input import TextInput
from mmjax.errors import UserError
from mmjax.runtime import hosts
from mmjax.runtime.files import digests
from mmjax.train.loop import train
from mmjax.train.replay import replay
from mmjax.train.same_data import check_data
from tests.trained import TINY, Trained, tiny_config

ROWS = ["image,text,kind,split", *(f"{i}.png,caption {i},x,train" for i in range(6)), "9.png,caption 9,x,test"]

SPECS = {
    "image": Spec((8, 8, 3), "uint8", kind=PictureInput),
    "text": Spec((4,), "int32", kind=TextInput),
    "depth": Spec((2,), "float32"),
}


def data(folder: Path, *rows: str, wrap=lambda source: source, **fields: str) -> Prepared:
    folder.mkdir(exist_ok=True)
    (folder / "0.png").touch()
    (folder / "t.csv").write_text("\n".join(rows or ROWS) + "\n")
    source = wrap(Folder(str(folder / "t.csv"), **fields))  # pyright: ignore[reportArgumentType]
    return opened("image", source)


def opened(modality: str, source) -> Prepared:
    chains = SimpleNamespace(specs={modality: SPECS[modality]})
    return Prepared(Mixture({"own": 1.0}, {modality: ()}, {"own": source}), chains, None)  # pyright: ignore


def refused(made: Prepared, workdir: Path, *said: str) -> None:
    kept = (workdir / "data.json").read_text()
    with pytest.raises(UserError, match=r"began with other data than is there now:\n  own: ") as caught:
        check_data(made, workdir, begun=True)
    assert all(text in str(caught.value) for text in said), str(caught.value)
    assert "--fork" in str(caught.value)
    assert (workdir / "data.json").read_text() == kept


def test_rows_that_have_changed_are_told_and_a_fork_takes_them(tmp_path):
    check_data(data(tmp_path / "a"), tmp_path, begun=False)
    before = json.loads((tmp_path / "data.json").read_text())
    assert before["train"]["own"].keys() == {"rows", "id", "image"}  # captions aren't read
    check_data(data(tmp_path / "a"), tmp_path, begun=True)
    more = data(tmp_path / "a", *ROWS, "7.png,caption 7,x,train")
    refused(more, tmp_path, "rows 6 there, 7 here", "other ids", "other pictures")
    refused(data(tmp_path / "a", ROWS[0], *ROWS[:0:-1]), tmp_path, "other ids, or their order")
    check_data(more, tmp_path, begun=True, fork=True)
    check_data(more, tmp_path, begun=True)
    assert json.loads((tmp_path / "data.json.old").read_text()) == before
    assert json.loads((tmp_path / "data.json").read_text())["train"]["own"]["rows"] == 7


def test_what_no_step_sees_may_change(tmp_path):
    check_data(data(tmp_path / "a"), tmp_path, begun=False)
    other = [row.replace(",x,", ",another label,") for row in ROWS if not row.endswith("test")]
    check_data(data(tmp_path / "a", *other, "8.png,caption 8,x,validation"), tmp_path, begun=True)
    check_data(data(tmp_path / "b"), tmp_path, begun=True)  # another place
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "0.png").touch()
    check_data(data(tmp_path / "a", root=str(tmp_path / "c")), tmp_path, begun=True)


def test_captions_count_where_they_are_read_by_way_of_other_sources_too(tmp_path):
    def made(wrap, text: str) -> Prepared:
        (tmp_path / "t.csv").write_text(f"id,text,split\n1,{text},train\n")
        return opened("text", wrap(Folder(str(tmp_path / "t.csv"))))

    for wrap in (Documents, EveryCaption):
        check_data(made(wrap, "a cat"), tmp_path, begun=False)
        check_data(made(wrap, "a cat"), tmp_path, begun=True)
        refused(made(wrap, "a tom"), tmp_path, "own: other captions\n")


def test_all_columns_count_where_a_record_transform_may_read_them(tmp_path):
    def made(caption: str, *record_transforms, kind: str = "x") -> Prepared:
        rows = [ROWS[0], f"0.png,{caption},{kind},train"]
        plain = data(tmp_path / "a", *rows)
        return Prepared(replace(plain.mixture, record_transforms=record_transforms), plain.chains, None)

    check_data(made("a cat"), tmp_path, begun=False)
    check_data(made("a tom"), tmp_path, begun=True)
    copied = CopyInput("text", "caption_2")
    check_data(made("a cat", copied), tmp_path, begun=False)
    refused(made("a tom", copied), tmp_path, "own: other captions\n")
    labelled = CopyInput("kind", "caption_2")  # a column of labels
    check_data(made("a cat", labelled), tmp_path, begun=False)
    refused(made("a cat", labelled, kind="y"), tmp_path, "own: other values of 'kind'\n")


def test_a_modality_of_ones_own_counts_by_its_files_or_by_its_numbers(tmp_path):
    def made(cells: str, **fields) -> Prepared:
        (tmp_path / "t.csv").write_text(f"id,text,depth,split\n1,a cat,{cells},train\n")
        (tmp_path / "a.npy").touch()
        return opened("depth", Folder(str(tmp_path / "t.csv"), **fields))

    for fields, cells, others in (({"files": ("depth",)}, "a.npy", "b.npy"), ({}, "3", "4")):
        check_data(made(cells, **fields), tmp_path, begun=False)
        check_data(made(cells, **fields), tmp_path, begun=True)
        (tmp_path / others).touch()
        refused(made(others, **fields), tmp_path, "own: other examples of 'depth' (their paths or bytes)\n")


def test_records_are_compared_by_what_they_say_of_themselves(tmp_path):
    class Plain(Source, Records):
        columns = ("id", "image")

        def open(self, split, data_dir=None):
            return self

        def __len__(self) -> int:
            return 3

    class Told(Plain):
        def __init__(self, **told):
            self.fingerprint = lambda columns=None: told

    check_data(opened("image", Plain()), tmp_path, begun=False)
    check_data(opened("image", Told(rows=3)), tmp_path, begun=True)
    refused(opened("image", Told(rows=4)), tmp_path, "own: rows 3 there, 4 here\n")
    check_data(opened("image", Told(rows=3, dataset="toy/0.9.0")), tmp_path, begun=False)
    refused(
        opened("image", Told(rows=3, dataset="toy/1.0.0")), tmp_path, "own: dataset toy/0.9.0 there, toy/1.0.0 here\n"
    )


def test_a_try_that_took_no_step_and_a_run_from_before_get_their_record(tmp_path):
    check_data(data(tmp_path / "a"), tmp_path, begun=True)  # there was no such file
    assert json.loads((tmp_path / "data.json").read_text())["train"]["own"]["rows"] == 6
    check_data(data(tmp_path / "a", *ROWS[:-2]), tmp_path, begun=False)
    assert json.loads((tmp_path / "data.json").read_text())["train"]["own"]["rows"] == 5
    for broken in ("{", "[" * 100_000):
        (tmp_path / "data.json").write_text(broken)
        with pytest.raises(UserError, match=r"data\.json, which says what data the run began with, can't be read: del"):
            check_data(data(tmp_path / "a"), tmp_path, begun=True)


def test_hosts_that_read_other_data_say_so(tmp_path, monkeypatch):
    other = {"own": {"rows": 5, "id": "x", "image": "y"}}
    monkeypatch.setattr(hosts, "gathered", lambda value: [value, value, other] if value else [value])
    with pytest.raises(UserError, match="host 2 reads other data than host 0: own: rows 6 there, 5 here"):
        check_data(data(tmp_path / "a"), tmp_path, begun=False)
    assert not (tmp_path / "data.json").exists()


def test_training_and_a_replay_look_at_it_first(trained_copy: Trained):
    config, path = tiny_config(trained_copy.table), trained_copy.workdir / "data.json"
    kept = json.loads(path.read_text())
    assert kept["train"]["shapes"].keys() == {"rows", "id", "image", "text", "audio"}
    kept["train"]["shapes"] |= {"rows": 71, "text": "0"}
    path.write_text(json.dumps(digests.sealed({"train": kept["train"]})))
    said = r"shapes: rows 71 there, 72 here, other captions"
    with pytest.raises(UserError, match=said):
        train(config, trained_copy.workdir, name=TINY)
    with pytest.raises(UserError, match=said):
        replay(config, trained_copy.workdir, 3)
    train(config, trained_copy.workdir, name=TINY, fork=True)
    assert json.loads(path.read_text())["train"]["shapes"]["rows"] == 72
