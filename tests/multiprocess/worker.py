"""One process of several: says what it read, and what it heard from the others, into FOLDER/<index>.json.

python -m tests.multiprocess.worker FOLDER TABLE
"""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

from mmjax.data.pipeline import batch_spec, batches
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.runtime import hosts
from mmjax.runtime.mesh import Mesh, put, replicated
from mmjax.train.step import with_params
from tests.states import init_state
from tests.trained import tiny_config

MESHES = {"data": Mesh(), "fsdp": Mesh(data=2, fsdp=-1), "halves": Mesh(data=2, tensor=-1), "tensor": Mesh(tensor=8)}


def read(mesh: jax.sharding.Mesh, data, seen: list[str]) -> dict:
    """Two global batches from step 3 on, as every host sees them in the end."""
    part = hosts.reader(mesh, 16)
    stream = batches(data, batch_size=16, seed=0, step=3, host=part)
    gather = jax.jit(lambda batch: batch, out_shardings=replicated(mesh))
    found = []
    for _ in range(2):
        mine = next(stream)
        seen.append(f"{len(mine['id'])} rows")
        batch = jax.device_get(gather(put(mine, mesh)))
        found.append({name: np.asarray(batch[name]).tolist() for name in ("index", "id", "text")})
    return {"part": part, "batches": found}


def replaced(experiment, mesh: jax.sharding.Mesh) -> list[float]:
    """How far parameters are from twice what they were, after they were given as numpy; and whether they moved."""
    spec = batch_spec(experiment.data, 16)
    state = init_state(experiment.pretrainer(), experiment.optimizer, spec, seed=0, mesh=mesh)
    before = hosts.whole(state.params)
    doubled = with_params(state, jax.tree.map(lambda leaf: 2 * leaf, before))
    pairs = zip(jax.tree.leaves(hosts.whole(doubled.params)), jax.tree.leaves(before), strict=True)
    moved = [
        a.sharding != b.sharding for a, b in zip(*map(jax.tree.leaves, (state.params, doubled.params)), strict=True)
    ]
    return [max(float(np.abs(now - 2 * then).max()) for now, then in pairs), float(sum(moved))]


def main(folder: str, table: str) -> None:
    hosts.join()
    index, count = hosts.host()
    experiment = build(tiny_config(table, name="couple"))
    data = prepared(experiment.data, Path(folder) / "workdir")
    local = jax.local_device_count()
    woven = [jax.devices()[host * local + i] for i in range(local) for host in range(count)]
    meshes = {name: mesh.build() for name, mesh in MESHES.items()} | {"woven": Mesh().build(woven)}
    rows: list[str] = []
    found: dict = {"read": {name: read(mesh, data, rows) for name, mesh in meshes.items()}, "rows": rows}

    # 3 MB from host 0, little from the others: more than one piece goes over
    hosts.PIECE = 2**20
    told = hosts.gathered(
        {"host": index, "raw": b"\xff" * (3_000_000 if index == 0 else index), "array": np.arange(index)}
    )
    found["told"] = [(one["host"], len(one["raw"]), len(one["array"])) for one in told]
    found["first"] = hosts.first(lambda: f"said by {index}")

    def fails() -> None:
        if index == count - 1:
            raise UserError("my disk is gone")

    for name, attempt in (("last", lambda: hosts.together(fails)), ("first", lambda: hosts.first(lambda: {}["key"]))):
        try:
            attempt()
        except Exception as error:
            found[f"error of the {name}"] = f"{type(error).__name__}: {error}"

    largest = hosts.Largest(meshes["data"])
    found["largest"] = [largest(15 if (call, index) == (1, count - 1) else 0) for call in range(4)]

    # Woven: the devices of the hosts take turns along the mesh's axis.
    totals = [hosts.Total(meshes[name], lambda numbers: 2 * numbers) for name in ("data", "woven", "tensor")]
    found["totals"] = [np.asarray(total(np.array([1, 10 * index]))).tolist() for total in totals]

    tree = {"a": np.arange(8, dtype=np.float32), "b": np.float32(3)}
    back = hosts.whole(hosts.placed(tree, replicated(meshes["data"])))
    found["whole"] = {name: np.asarray(leaf).tolist() for name, leaf in back.items()}
    sharded = jax.jit(lambda x: x, out_shardings=jax.sharding.NamedSharding(meshes["tensor"], jax.P("tensor")))
    found["sharded"] = hosts.whole(sharded(np.arange(8))).tolist()
    found["replaced"] = replaced(experiment, meshes["fsdp"])
    began = time.monotonic()
    if index == 0:
        time.sleep(1)
    hosts.wait()
    found["waited"] = time.monotonic() - began
    (Path(folder) / f"{index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
