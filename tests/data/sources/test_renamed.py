"""A source by other names gives the same records."""

import pickle

from mmjax.data.sources.folder import Folder
from mmjax.data.sources.renamed import Renamed


def test_columns_are_called_otherwise(folder_table):
    plain, records = (source.open("test") for source in (
        Folder(folder_table), Renamed(Folder(folder_table), {"photo": "image", "label": "kind"})
    ))  # fmt: skip
    assert set(records.columns) == {"id", "photo", "text", "audio", "label"}
    assert records.media == ("photo", "audio")
    assert records[1] == {"photo": plain[1]["image"], "label": plain[1]["kind"]} | {
        name: plain[1][name] for name in ("id", "text", "audio")
    }
    assert (len(records), records.named, records.in_memory) == (len(plain), plain.named, True)
    told, known = records.fingerprint(("photo",)), plain.fingerprint(("image",))
    assert told == {"rows": len(plain), "id": known["id"], "photo": known["image"]}
    assert pickle.loads(pickle.dumps(records))[1] == records[1]
