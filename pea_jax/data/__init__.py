"""Bytes on disk to batches: webdataset shards or precomputed records, captions, aspect buckets, loader."""

from pea_jax.data.cache import CachedSource, read_manifest, write_cache
from pea_jax.data.captions import CaptionRules, Captions, caption_variants
from pea_jax.data.concepts import Concept, read_split
from pea_jax.data.loader import PixelExample, cached_example, make_loader, tokenize_captions
from pea_jax.data.samples import Sample
from pea_jax.data.sources import open_source
from pea_jax.data.webdataset import WebDatasetSource

__all__ = [
    "CachedSource",
    "CaptionRules",
    "Captions",
    "Concept",
    "PixelExample",
    "Sample",
    "WebDatasetSource",
    "cached_example",
    "caption_variants",
    "make_loader",
    "open_source",
    "read_manifest",
    "read_split",
    "tokenize_captions",
    "write_cache",
]
