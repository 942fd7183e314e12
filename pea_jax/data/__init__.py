"""Bytes on disk to batches: webdataset shards or precomputed records, captions, aspect buckets, loader."""

from pea_jax.data.cache import CachedSource, CacheWriter, divide, read_manifest
from pea_jax.data.captions import CaptionRules, Captions, caption_variants
from pea_jax.data.concepts import Concept, read_split
from pea_jax.data.loader import PixelExample, cached_example, make_loader, tokenize_captions
from pea_jax.data.samples import Sample
from pea_jax.data.sources import EnglishAlone, JoinedSource, open_source
from pea_jax.data.webdataset import WebDatasetSource

__all__ = [
    "CacheWriter",
    "CachedSource",
    "CaptionRules",
    "Captions",
    "Concept",
    "EnglishAlone",
    "JoinedSource",
    "PixelExample",
    "Sample",
    "WebDatasetSource",
    "cached_example",
    "caption_variants",
    "divide",
    "make_loader",
    "open_source",
    "read_manifest",
    "read_split",
    "tokenize_captions",
]
