"""Lists what of a model no file of big_vision can say."""

from mmjax.errors import UserError
from mmjax.interop.parts import Parts
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive


def check_writable_parts(built: Parts, where: str) -> None:
    """Raises UserError where no file of big_vision can hold the built parts; says all that is in the way."""
    kinds = {name: type(tower) for name, tower in built.towers.items()}
    pair = kinds == {"image": ViT, "text": TextTransformer} and [
        type(objective) for objective in built.objectives.values()
    ] == [Contrastive]
    problems = []
    if not pair and not (kinds == {"image": ViT} and not built.objectives):
        problems.append(
            "a file of big_vision is a ViT, or that and a TextTransformer with a Contrastive objective; here "
            f"there are {', '.join([*(kind.__name__ for kind in kinds.values()), *built.objectives])}"
        )
    for name, tower in built.towers.items():
        if isinstance(tower, ViT | TextTransformer):
            problems += _unlike(name, tower)
    if problems:
        raise UserError("\n  ".join([f"{where}: big_vision has no such model:", *problems]))


def _unlike(name: str, tower: ViT | TextTransformer) -> list[str]:
    """The settings of a tower that no file of theirs can express, and no array shows."""
    at, found = f"towers.{name}", []
    if isinstance(tower, ViT):
        if tower.positions != "learned" or not tower.stem_bias or tower.pre_norm:
            found.append(
                "big_vision's ViT has learned positions, a bias in its stem and no norm before its blocks; "
                f"{at} has positions={tower.positions!r}, stem_bias={tower.stem_bias}, pre_norm={tower.pre_norm}"
            )
        if any(value != 0.5 for value in (*tower.mean, *tower.std)):
            found.append(
                f"big_vision's models see pixels in [-1, 1]: mean and std are 0.5. {at} has mean={tower.mean}, "
                f"std={tower.std}, which no file of theirs can say"
            )
    else:
        held = {"causal": (False,), "attend_padding": (True,), "pooling": ("last", "map"), "positions": ("learned",)}
        found += [
            f"{at}.{field}: {' or '.join(map(repr, known))} there, {getattr(tower, field)!r} here"
            for field, known in held.items()
            if getattr(tower, field) not in known
        ]
    if tower.embed_dim is not None and not tower.projection_bias:
        found.append(f"big_vision's heads have a bias: {at} has projection_bias=False")
    own = {"trunk": tower.trunk is not None, "layer_scale": tower.sizes.layer_scale}
    own |= {"norm='post'": tower.sizes.norm != "pre", "blocks.depth=0": not tower.sizes.depth}
    own |= {"blocks.out_bias=False": not tower.sizes.out_bias}
    if told := [field for field, value in own.items() if value]:
        found.append(f"big_vision's towers have no {', '.join(told)}, which {at} has")
    return found
