"""A resize and the crop behind it as one step, so that pixels outside the crop are never computed.

`ResizeShorter(224)` of a picture of 1×4000 has 200 million pixels, of which `CenterCrop(224)` keeps 50,000.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mmjax.data.decoding.pictures import Picture
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.image import CenterCrop, ResizeShorter, resized

# Pixels up to which the whole is made and then cropped, bit for bit as in other projects: 50 MB. Beyond, the places of
# the
# part are rounded otherwise, which changes some pixels by one grey level.
ORDINARY = 2**24


@dataclass(frozen=True)
class _ResizedCrop(Transform):
    resize: ResizeShorter
    crop: CenterCrop

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        height, width = value.shape[:2]
        high, wide = self.resize.sides(height, width)
        if high * wide <= ORDINARY or max(high, wide) <= self.crop.size:
            return self.crop(self.resize(value, rng), rng)
        start, size = self.crop.start(max(high, wide)), self.crop.size
        if wide > high:
            box = (start * width / wide, 0, (start + size) * width / wide, height)
            return self.crop(resized(value, high, size, self.resize.method, box), rng)
        box = (0, start * height / high, width, (start + size) * height / high)
        return self.crop(resized(value, size, wide, self.resize.method, box), rng)

    def spec(self, before: Spec | None) -> Spec:
        return self.crop.spec(self.resize.spec(before))


def cropped_early(chain: Sequence[Transform]) -> tuple[Transform, ...]:
    """The chain with every `ResizeShorter` before a `CenterCrop` as one step with it: the same pictures."""
    steps: list[Transform] = []
    for transform in chain:
        if isinstance(transform, CenterCrop) and steps and isinstance(steps[-1], ResizeShorter):
            steps[-1] = _ResizedCrop(steps[-1], transform)
        else:
            steps.append(transform)
    return tuple(steps)
