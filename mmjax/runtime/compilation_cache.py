"""Turns on jax's cache of compiled programs on disk."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Keeps compiled code under `$XDG_CACHE_HOME/mmjax` (~/.cache/mmjax), or where JAX_COMPILATION_CACHE_DIR says."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmjax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
