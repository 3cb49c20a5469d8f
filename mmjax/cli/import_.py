"""`mmjax import`: bring another project's model into a folder of mmjax's."""

import argparse
from pathlib import Path

HELP = "bring another project's model into a folder"
EPILOG = """\
examples:
  mmjax import hf:google/siglip-base-patch16-224 siglip
  mmjax import open_clip:ViT-B-32/laion2b_s34b_b79k vit_b32
  mmjax import bv:gs://big_vision/siglip/webli_en_b16_224_63724782.npz siglip
  mmjax import ~/models/clip-vit-base-patch32 vit_b32                     # a folder of Hugging Face's

The folder is what mmjax.load, mmjax evaluate and Load() take. What has no counterpart here is an error, which names all
settings that are in the way.

A name is fetched once (pip install "mmjax[interop]"), converted, and pinned to the commit first seen, which is printed:
hf:google/siglip-base-patch16-224@main asks again, @COMMIT names one for good. mmjax reads Hugging Face's CLIP, SigLIP,
BERT, ViTMAE, DINOv2 and AST, sentence-transformers on BERT, open_clip's ViTs and ResNets, big_vision's .npz of ViT and
SigLIP, an .onnx of a DINOv2 tower, and MERLOT Reserve's released checkpoints.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("source", metavar="SOURCE", help="a folder, a file, or a name of a hub")
    parser.add_argument("out", metavar="OUT", help="a folder that isn't there yet")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from mmjax.interop.export import export

    export(arguments.source, Path(arguments.out), "mmjax")
