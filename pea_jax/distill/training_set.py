"""From a config to the rules by which a sample becomes a training example."""

from ml_collections import ConfigDict

from pea_jax.data import CaptionRules
from pea_jax.data.buckets import Size


def caption_rules(config: ConfigDict) -> CaptionRules:
    """Which captions of a sample are used."""
    fields = config.data.caption_fields
    return CaptionRules(
        language=config.language,
        native=tuple(fields.native.split()),
        translated=tuple(fields.translated.split()),
        english=fields.english,
        keywords=fields.keywords,
        cleaning=config.data.cleaning,
        variants=config.data.caption_variants,
        english_variants=config.data.english_variants,
        seed=config.seed,
    )


def buckets_of(config: ConfigDict) -> list[Size]:
    """(width, height) of the buckets."""
    return [(width, height) for width, height in config.data.buckets]
