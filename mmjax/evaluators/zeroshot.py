"""Zero-shot classification by prompts (Radford et al. 2021, arXiv:2103.00020, section 3.1)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mmjax.evaluators.embedded import Embedded, EmbedText, When
from mmjax.evaluators.ranking import ranks


@dataclass(frozen=True)
class ZeroShot:
    """Finds the class of each example among all classes, knowing only their names.

    label: the column that holds the class. Classes are its values in the split, or `classes` where given.
    templates: prompts, with `{}` for the class's name; a class is the normalised mean of its prompts' embeddings.
    separators: characters of a label that a prompt writes as spaces ("face-smiling" is asked for as "face smiling").
    modality: what is classified.

    Examples without the modality, or whose label is None or not among `classes`, don't count. Ties count against the
    model. Metrics: `<name>/<label>/top1`, `top5`, and `recall`, the mean over classes of the share found (top 1), which
    big classes can't dominate.
    """

    label: str
    split: str = "validation"
    templates: tuple[str, ...] = ("{}",)
    classes: tuple[str, ...] | None = None
    separators: str = "-_"
    modality: str = "image"
    when: When = "always"
    name: str = "zeroshot"
    inputs: tuple[str, ...] = ()

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        if self.modality not in embedded.embeddings:
            known = ", ".join(embedded.embeddings)
            raise ValueError(f"ZeroShot(modality={self.modality!r}): the experiment embeds {known}")
        labels = embedded.column(self.label, "ZeroShot(label=...)")
        classes = self.classes or tuple(sorted({label for label in labels if label is not None}))
        number = {label: i for i, label in enumerate(classes)}
        known = np.array([number.get(label, -1) for label in labels], np.int64)
        rows = np.flatnonzero(embedded.valid[self.modality] & (known >= 0))
        if not len(rows):
            return {}
        names = class_embeddings([self.spoken(label) for label in classes], self.templates, embed_text)
        found = ranks(embedded.embeddings[self.modality][rows], names, known[rows], np.arange(len(classes)))
        first = found == 1
        recalls = [first[known[rows] == i].mean() for i in np.unique(known[rows])]
        prefix = f"{self.name}/{self.label}"
        return {
            f"{prefix}/top1": float(first.mean()),
            f"{prefix}/top5": float((found <= 5).mean()),
            f"{prefix}/recall": float(np.mean(recalls)),
        }

    def spoken(self, label: str) -> str:
        """The label as a prompt writes it."""
        return str(label).translate(str.maketrans(dict.fromkeys(self.separators, " ")))


def class_embeddings(
    names: list[str], templates: tuple[str, ...], embed_text: EmbedText
) -> Float[np.ndarray, "classes e"]:
    """The normalised mean, over templates, of each name's unit embeddings; fp32."""
    prompts = [template.format(name) for name in names for template in templates]
    vectors = np.asarray(embed_text(prompts), np.float32).reshape(len(names), len(templates), -1)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    mean = vectors.mean(axis=1)
    return mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
