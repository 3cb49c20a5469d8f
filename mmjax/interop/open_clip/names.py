"""open_clip's names of published weights, and the repositories of the Hugging Face hub that hold them.

From open_clip's own table (its `pretrained.py`, version 3.3): all whose architecture can be read here. Every
repository holds an open_clip_config.json, which says whether the activation is QuickGELU; open_clip's models named
`...-quickgelu` are the same repositories. `ViT-B-16-plus-240/laion400m_e32` isn't here: the table has the repository of
`laion400m_e31` for it.
"""

from mmjax.errors import UserError, nearest
from mmjax.interop import not_here

QUICK = "-quickgelu"

REPOSITORIES: dict[str, dict[str, str]] = {
    "RN50": {
        "openai": "timm/resnet50_clip.openai",
        "yfcc15m": "timm/resnet50_clip.yfcc15m",
        "cc12m": "timm/resnet50_clip.cc12m",
    },
    "RN101": {
        "openai": "timm/resnet101_clip.openai",
        "yfcc15m": "timm/resnet101_clip.yfcc15m",
    },
    "RN50x4": {
        "openai": "timm/resnet50x4_clip.openai",
    },
    "RN50x16": {
        "openai": "timm/resnet50x16_clip.openai",
    },
    "RN50x64": {
        "openai": "timm/resnet50x64_clip.openai",
    },
    "ViT-B-32": {
        "openai": "timm/vit_base_patch32_clip_224.openai",
        "laion400m_e31": "timm/vit_base_patch32_clip_224.laion400m_e31",
        "laion400m_e32": "timm/vit_base_patch32_clip_224.laion400m_e32",
        "laion2b_e16": "timm/vit_base_patch32_clip_224.laion2b_e16",
        "laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
        "datacomp_m_s128m_b4k": "laion/CLIP-ViT-B-32-DataComp.M-s128M-b4K",
        "commonpool_m_clip_s128m_b4k": "laion/CLIP-ViT-B-32-CommonPool.M.clip-s128M-b4K",
        "commonpool_m_laion_s128m_b4k": "laion/CLIP-ViT-B-32-CommonPool.M.laion-s128M-b4K",
        "commonpool_m_image_s128m_b4k": "laion/CLIP-ViT-B-32-CommonPool.M.image-s128M-b4K",
        "commonpool_m_text_s128m_b4k": "laion/CLIP-ViT-B-32-CommonPool.M.text-s128M-b4K",
        "commonpool_m_basic_s128m_b4k": "laion/CLIP-ViT-B-32-CommonPool.M.basic-s128M-b4K",
        "commonpool_m_s128m_b4k": "laion/CLIP-ViT-B-32-CommonPool.M-s128M-b4K",
        "datacomp_s_s13m_b4k": "laion/CLIP-ViT-B-32-DataComp.S-s13M-b4K",
        "commonpool_s_clip_s13m_b4k": "laion/CLIP-ViT-B-32-CommonPool.S.clip-s13M-b4K",
        "commonpool_s_laion_s13m_b4k": "laion/CLIP-ViT-B-32-CommonPool.S.laion-s13M-b4K",
        "commonpool_s_image_s13m_b4k": "laion/CLIP-ViT-B-32-CommonPool.S.image-s13M-b4K",
        "commonpool_s_text_s13m_b4k": "laion/CLIP-ViT-B-32-CommonPool.S.text-s13M-b4K",
        "commonpool_s_basic_s13m_b4k": "laion/CLIP-ViT-B-32-CommonPool.S.basic-s13M-b4K",
        "commonpool_s_s13m_b4k": "laion/CLIP-ViT-B-32-CommonPool.S-s13M-b4K",
        "metaclip_400m": "timm/vit_base_patch32_clip_224.metaclip_400m",
        "metaclip_fullcc": "timm/vit_base_patch32_clip_224.metaclip_2pt5b",
    },
    "ViT-B-32-256": {
        "datacomp_s34b_b86k": "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
    },
    "ViT-B-16": {
        "openai": "timm/vit_base_patch16_clip_224.openai",
        "laion400m_e31": "timm/vit_base_patch16_clip_224.laion400m_e31",
        "laion400m_e32": "timm/vit_base_patch16_clip_224.laion400m_e32",
        "laion2b_s34b_b88k": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        "datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        "datacomp_l_s1b_b8k": "laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K",
        "commonpool_l_clip_s1b_b8k": "laion/CLIP-ViT-B-16-CommonPool.L.clip-s1B-b8K",
        "commonpool_l_laion_s1b_b8k": "laion/CLIP-ViT-B-16-CommonPool.L.laion-s1B-b8K",
        "commonpool_l_image_s1b_b8k": "laion/CLIP-ViT-B-16-CommonPool.L.image-s1B-b8K",
        "commonpool_l_text_s1b_b8k": "laion/CLIP-ViT-B-16-CommonPool.L.text-s1B-b8K",
        "commonpool_l_basic_s1b_b8k": "laion/CLIP-ViT-B-16-CommonPool.L.basic-s1B-b8K",
        "commonpool_l_s1b_b8k": "laion/CLIP-ViT-B-16-CommonPool.L-s1B-b8K",
        "dfn2b": "apple/DFN2B-CLIP-ViT-B-16",
        "metaclip_400m": "timm/vit_base_patch16_clip_224.metaclip_400m",
        "metaclip_fullcc": "timm/vit_base_patch16_clip_224.metaclip_2pt5b",
    },
    "ViT-B-16-plus-240": {
        "laion400m_e31": "timm/vit_base_patch16_plus_clip_240.laion400m_e31",
    },
    "ViT-L-14": {
        "openai": "timm/vit_large_patch14_clip_224.openai",
        "laion400m_e31": "timm/vit_large_patch14_clip_224.laion400m_e31",
        "laion400m_e32": "timm/vit_large_patch14_clip_224.laion400m_e32",
        "laion2b_s32b_b82k": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
        "datacomp_xl_s13b_b90k": "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        "commonpool_xl_clip_s13b_b90k": "laion/CLIP-ViT-L-14-CommonPool.XL.clip-s13B-b90K",
        "commonpool_xl_laion_s13b_b90k": "laion/CLIP-ViT-L-14-CommonPool.XL.laion-s13B-b90K",
        "commonpool_xl_s13b_b90k": "laion/CLIP-ViT-L-14-CommonPool.XL-s13B-b90K",
        "metaclip_400m": "timm/vit_large_patch14_clip_224.metaclip_400m",
        "metaclip_fullcc": "timm/vit_large_patch14_clip_224.metaclip_2pt5b",
        "dfn2b": "apple/DFN2B-CLIP-ViT-L-14",
        "dfn2b_s39b": "apple/DFN2B-CLIP-ViT-L-14-39B",
    },
    "ViT-L-14-336": {
        "openai": "timm/vit_large_patch14_clip_336.openai",
    },
    "ViT-H-14": {
        "laion2b_s32b_b79k": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        "metaclip_fullcc": "timm/vit_huge_patch14_clip_224.metaclip_2pt5b",
        "metaclip_altogether": "timm/vit_huge_patch14_clip_224.metaclip_altogether",
        "dfn5b": "apple/DFN5B-CLIP-ViT-H-14",
    },
    "ViT-H-14-378": {
        "dfn5b": "apple/DFN5B-CLIP-ViT-H-14-378",
    },
    "ViT-g-14": {
        "laion2b_s12b_b42k": "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
        "laion2b_s34b_b88k": "laion/CLIP-ViT-g-14-laion2B-s34B-b88K",
    },
    "ViT-bigG-14": {
        "laion2b_s39b_b160k": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
        "metaclip_fullcc": "timm/vit_gigantic_patch14_clip_224.metaclip_2pt5b",
    },
    "ViT-L-14-CLIPA": {
        "datacomp1b": "UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B",
    },
    "ViT-L-14-CLIPA-336": {
        "datacomp1b": "UCSC-VLAA/ViT-L-14-CLIPA-336-datacomp1B",
    },
    "ViT-H-14-CLIPA": {
        "datacomp1b": "UCSC-VLAA/ViT-H-14-CLIPA-datacomp1B",
    },
    "ViT-H-14-CLIPA-336": {
        "laion2b": "UCSC-VLAA/ViT-H-14-CLIPA-336-laion2B",
        "datacomp1b": "UCSC-VLAA/ViT-H-14-CLIPA-336-datacomp1B",
    },
    "ViT-bigG-14-CLIPA": {
        "datacomp1b": "UCSC-VLAA/ViT-bigG-14-CLIPA-datacomp1B",
    },
    "ViT-bigG-14-CLIPA-336": {
        "datacomp1b": "UCSC-VLAA/ViT-bigG-14-CLIPA-336-datacomp1B",
    },
    "ViT-B-16-SigLIP": {
        "webli": "timm/ViT-B-16-SigLIP",
    },
    "ViT-B-16-SigLIP-256": {
        "webli": "timm/ViT-B-16-SigLIP-256",
    },
    "ViT-B-16-SigLIP-i18n-256": {
        "webli": "timm/ViT-B-16-SigLIP-i18n-256",
    },
    "ViT-B-16-SigLIP-384": {
        "webli": "timm/ViT-B-16-SigLIP-384",
    },
    "ViT-B-16-SigLIP-512": {
        "webli": "timm/ViT-B-16-SigLIP-512",
    },
    "ViT-L-16-SigLIP-256": {
        "webli": "timm/ViT-L-16-SigLIP-256",
    },
    "ViT-L-16-SigLIP-384": {
        "webli": "timm/ViT-L-16-SigLIP-384",
    },
    "ViT-SO400M-14-SigLIP": {
        "webli": "timm/ViT-SO400M-14-SigLIP",
    },
    "ViT-SO400M-16-SigLIP-i18n-256": {
        "webli": "timm/ViT-SO400M-16-SigLIP-i18n-256",
    },
    "ViT-SO400M-14-SigLIP-378": {
        "webli": "timm/ViT-SO400M-14-SigLIP-384",
    },
    "ViT-SO400M-14-SigLIP-384": {
        "webli": "timm/ViT-SO400M-14-SigLIP-384",
    },
    "ViT-B-32-SigLIP2-256": {
        "webli": "timm/ViT-B-32-SigLIP2-256",
    },
    "ViT-B-16-SigLIP2": {
        "webli": "timm/ViT-B-16-SigLIP2",
    },
    "ViT-B-16-SigLIP2-256": {
        "webli": "timm/ViT-B-16-SigLIP2-256",
    },
    "ViT-B-16-SigLIP2-384": {
        "webli": "timm/ViT-B-16-SigLIP2-384",
    },
    "ViT-B-16-SigLIP2-512": {
        "webli": "timm/ViT-B-16-SigLIP2-512",
    },
    "ViT-L-16-SigLIP2-256": {
        "webli": "timm/ViT-L-16-SigLIP2-256",
    },
    "ViT-L-16-SigLIP2-384": {
        "webli": "timm/ViT-L-16-SigLIP2-384",
    },
    "ViT-L-16-SigLIP2-512": {
        "webli": "timm/ViT-L-16-SigLIP2-512",
    },
    "ViT-SO400M-14-SigLIP2": {
        "webli": "timm/ViT-SO400M-14-SigLIP2",
    },
    "ViT-SO400M-14-SigLIP2-378": {
        "webli": "timm/ViT-SO400M-14-SigLIP2-378",
    },
    "ViT-SO400M-16-SigLIP2-256": {
        "webli": "timm/ViT-SO400M-16-SigLIP2-256",
    },
    "ViT-SO400M-16-SigLIP2-384": {
        "webli": "timm/ViT-SO400M-16-SigLIP2-384",
    },
    "ViT-SO400M-16-SigLIP2-512": {
        "webli": "timm/ViT-SO400M-16-SigLIP2-512",
    },
    "ViT-gopt-16-SigLIP2-256": {
        "webli": "timm/ViT-gopt-16-SigLIP2-256",
    },
    "ViT-gopt-16-SigLIP2-384": {
        "webli": "timm/ViT-gopt-16-SigLIP2-384",
    },
    "ViT-H-14-worldwide": {
        "metaclip2_worldwide": "timm/vit_huge_patch14_clip_224.metaclip2_worldwide",
    },
    "ViT-H-14-worldwide-378": {
        "metaclip2_worldwide": "timm/vit_huge_patch14_clip_378.metaclip2_worldwide",
    },
    "ViT-bigG-14-worldwide": {
        "metaclip2_worldwide": "timm/vit_gigantic_patch14_clip_224.metaclip2_worldwide",
    },
    "ViT-bigG-14-worldwide-378": {
        "metaclip2_worldwide": "timm/vit_gigantic_patch14_clip_378.metaclip2_worldwide",
    },
    "coca_ViT-B-32": {
        "laion2b_s13b_b90k": "laion/CoCa-ViT-B-32-laion2B-s13B-b90k",
        "mscoco_finetuned_laion2b_s13b_b90k": "laion/mscoco_finetuned_CoCa-ViT-B-32-laion2B-s13B-b90k",
    },
    "coca_ViT-L-14": {
        "laion2b_s13b_b90k": "laion/CoCa-ViT-L-14-laion2B-s13B-b90k",
        "mscoco_finetuned_laion2b_s13b_b90k": "laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k",
    },
}


def repository_of(name: str) -> str:
    """The repository of a model and its weights, `ViT-B-32/laion2b_s34b_b79k`.

    Raises:
        UserError: there is no such name (has the nearest), or it is of an architecture that can't be read here (says
            what of it is missing).
    """
    model, slash, weights = name.partition("/")
    plain = model.removesuffix(QUICK)
    if plain not in REPOSITORIES and (known := not_here.open_clip(plain)):
        raise UserError(f"open_clip:{name}: {known}")
    if plain not in REPOSITORIES:
        known = nearest(model, REPOSITORIES) or f": {', '.join(REPOSITORIES)}"
        raise UserError(f"open_clip:{name}: {model!r} is none of the models of open_clip that can be read here{known}")
    tags = REPOSITORIES[plain]
    tag = weights.lower().replace("-", "_")  # as open_clip takes them
    if not slash or tag not in tags:
        raise UserError(f"open_clip:{name}: the weights of {model} are {', '.join(tags)}{nearest(tag, tags)}")
    return tags[tag]
