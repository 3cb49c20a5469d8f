"""Logs each bad record once to `bad_examples.jsonl`, and stops the run when their share exceeds `most_bad_examples`."""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.bad_example import KINDS
from mmjax.data.pipeline import Prepared, examples
from mmjax.errors import UserError
from mmjax.experiment.definition import Experiment
from mmjax.runtime import copies, hosts, jsonl
from mmjax.train.guard import WINDOW, marked

FILE = "bad_examples{host}.jsonl"
LEAST = 1_000  # examples needed before the share of bad ones is judged
NAMED = 5  # bad records that an error names

Row = dict[str, np.ndarray]


class BadExamplesError(UserError):
    """Too large a share of the examples is bad, so the run stops."""


class BadExamples:
    """Watches this host's batches, and logs every bad record once: a JSON object a line, in the workdir.

    `{"step": 12, "source": "own", "id": "a.png", "modality": "image", "kind": "undecodable"}`; host 0 writes
    `bad_examples.jsonl`, host 3 `bad_examples-3.jsonl`. The metrics have their number over all hosts.
    """

    def __init__(self, workdir: Path, data: Prepared, experiment: Experiment, start: int):
        """Goes on after step `start`: lines of later steps, left by a run that was cut off, are dropped."""
        index = hosts.host()[0]
        self.path = workdir / FILE.format(host=f"-{index}" if index else "")
        self._data, self._experiment, self._start = data, experiment, start
        copy = copies.of_step(workdir, start) / self.path.name
        kept, copied = ([line for line in jsonl.read(path) if line["step"] <= start] for path in (self.path, copy))
        kept, _ = jsonl.completed(kept, copied, lambda line: (line["source"], line["id"], line["modality"]))
        self._known = {(line["source"], line["id"], line["modality"]) for line in kept}
        self._usable: Counter[str] = Counter()  # of this host's examples since then, by modality
        self._read = 0
        if self.path.exists() or kept:
            jsonl.rewrite(self.path, kept)

    def watched(self, batches: Iterator[Row]) -> Generator[Row]:
        """Yields the batches unchanged and logs the bad examples of each. `batches` must begin at step `start + 1`."""
        try:
            for step, batch in enumerate(batches, self._start + 1):
                if step <= self._experiment.steps:  # batches are made ahead, beyond the last step too
                    self._note(step, batch)
                yield batch
        finally:
            if close := getattr(batches, "close", None):
                close()

    def _note(self, step: int, batch: Row) -> None:
        codes = {modality: batch[f"{modality}_bad"] for modality in marked(batch)}
        self._usable.update({modality: int(batch[f"{modality}_valid"].sum()) for modality in codes})
        self._read += len(batch["index"])
        rows = np.flatnonzero(np.any(list(codes.values()), axis=0)) if codes else np.empty(0, int)
        if not len(rows):
            return
        size, seed = self._experiment.batch_size, self._experiment.seed
        places = batch["index"][rows].tolist()
        names = examples(self._data, batch_size=size, seed=seed, step=step - 1, rows=places)
        text = ""
        for row, (source, identity) in zip(rows, names, strict=True):
            for modality in codes:
                code = int(codes[modality][row])
                if code and (source, identity, modality) not in self._known:
                    self._known.add((source, identity, modality))
                    line = {"step": step, "source": source, "id": identity, "modality": modality}
                    text += jsonl.lines_text(line | {"kind": KINDS[code - 1]})
        if text:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)

    def too_many(self, step: int, values: Mapping[str, Any], nothing: bool = False) -> BadExamplesError | None:
        """The exception to raise when, by the metrics of that step, too large a share is bad; the same on all hosts.

        The share is judged from LEAST examples on, or at the run's last step if all are bad. nothing: whether no step
        so far had a valid example; this too stops the run only from LEAST examples on, whatever `most_bad_examples` is.
        """
        share, most = float(values.get("bad_share", 0.0)), self._experiment.most_bad_examples
        seen, last = step * self._experiment.batch_size, step == self._experiment.steps
        if share > most and (seen >= LEAST or (last and share == 1)):
            return BadExamplesError(
                f"{share:.1%} of the last {min(seen, WINDOW):,} examples are bad, and most_bad_examples={most} allows "
                f"no more. So far, to step {step}: {summary(values)}. {self.path} names them; the {self._named()}"
                + f"\nmend the data, or set most_bad_examples={min(1.0, np.ceil(share * 20) / 20):g} to go on as it is"
            )
        return self._of_nothing(step, values) if nothing and (seen >= LEAST or last) else None

    def _of_nothing(self, step: int, values: Mapping[str, Any]) -> BadExamplesError:
        usable = ", ".join(f"{count:,} with {name} that can be used" for name, count in sorted(self._usable.items()))
        there = f" Of the {self._read:,} examples that were read here there are {usable}." if self._read else ""
        told = summary(values)
        bad = f" Bad ones: {told}. {self.path} names them; the {self._named()}" if told else ""
        return BadExamplesError(
            f"the loss was over nothing: at all of the {step:,} steps it was 0, and so was its gradient, since no "
            f"batch held anything to learn from.{there}{bad}\nNothing was learnt: mend the data, and "
            "begin again with another --workdir"
        )

    def _named(self) -> str:
        found = jsonl.read(self.path)
        named = found if len(found) <= NAMED else self.last()
        which = "first ones" if named == found else "last ones"
        rows = [f"  {line['modality']} of {line['id']} in {line['source']}: {line['kind']}" for line in named]
        return f"{which}:\n" + "\n".join(rows)

    def last(self) -> list[dict[str, str]]:
        """The last bad records that this host logged."""
        return jsonl.read(self.path)[-NAMED:]


def summary(values: Mapping[str, Any]) -> str:
    """The counts of a step's metrics in words, `12 image undecodable, 1 text empty`; empty where nothing was bad."""
    found = [(int(count), *name.split("/")[1:]) for name, count in values.items() if name.startswith("bad/")]
    found = [entry for entry in found if entry[0]]
    return ", ".join(f"{count:,} {modality} {kind}" for count, modality, kind in sorted(found, reverse=True))
