"""What a run of a config would see, as tables for the screen."""

from collections.abc import Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from pea_jax.data import open_source
from pea_jax.data.captions import Kind
from pea_jax.distill.training_set import TrainingSet, caption_rules
from pea_jax.errors import BadSample, PeaError
from pea_jax.text.joined import load_tokenizer_of
from pea_jax.weights.locations import SEPARATOR

LISTED = 20  # bad samples that are named
MEASURED = 1000  # captions whose length is measured
_LONGEST = 512  # tokens that are told apart


def tables(config: ConfigDict, chosen: TrainingSet) -> Iterator[Table]:
    """All of them; the later ones read samples.

    Raises:
      PeaError: the data cannot be read.
    """
    yield _sets(config, chosen)
    yield _filters(chosen)
    yield _captions(config, chosen)
    if config.data.more_languages.split():
        yield _more_languages(config, chosen)
    yield _buckets(config, chosen)
    if chosen.survey.bad:
        yield _bad(chosen.survey.bad)
    if texts := _texts(config, chosen):
        yield _lengths(config, texts)
        yield _examples(texts[:: max(1, len(texts) // 8)][:8])


def _sets(config: ConfigDict, chosen: TrainingSet) -> Table:
    table, start = _table("Training data", "set", "parts", "samples", "used"), 0
    sets = [(pattern, pattern) for pattern in config.data.train.split()]
    sets += [(pattern, f"{pattern}, English alone") for pattern in config.data.english.split()]
    for pattern, label in sets:
        parts = open_source(pattern, config.data.cache_dir or None).parts
        end = start + sum(part.count for part in parts)
        used = np.count_nonzero(chosen.kept[start:end])
        table.add_row(label, f"{len(parts):,}", f"{end - start:,}", f"{used:,}")
        start = end
    return table


def _filters(chosen: TrainingSet) -> Table:
    table, left = _table("Filters, in this order", "reason", "removed", "left"), len(chosen.kept)
    for reason, count in chosen.removed.items():
        left -= count
        table.add_row(reason, f"{count:,}", f"{left:,}")
    return table


def _captions(config: ConfigDict, chosen: TrainingSet) -> Table:
    rules, rows = caption_rules(config), chosen.survey.rows[chosen.kept]
    table = _table("The student's caption, of the samples used", "from", "fields", "native", "parallel pairs")
    for kind in (Kind.NATIVE, Kind.TRANSLATED, Kind.ENGLISH):
        native = rows["native"][rows["caption"] == kind]
        counts = np.count_nonzero(native), np.count_nonzero(~native)
        table.add_row(kind.name.lower(), ", ".join(rules.names_of(kind)), *(f"{count:,}" for count in counts))
    return table


def _more_languages(config: ConfigDict, chosen: TrainingSet) -> Table:
    rules = caption_rules(config)
    table = _table("One more caption in each, of all samples", "language", "fields", "samples")
    for language in dict.fromkeys(rules.more_languages):
        table.add_row(language, ", ".join(rules.names_in(language)), f"{chosen.survey.told.get(language, 0):,}")
    return table


def _buckets(config: ConfigDict, chosen: TrainingSet) -> Table:
    table = _table("Buckets", "width x height", "samples", "share", "drawn", "batches an epoch")
    batches = {bucket: len(rows) // config.batch_size for bucket, rows in chosen.rows_by_bucket.items()}
    weights = chosen.weights or batches
    used, drawings = int(chosen.kept.sum()) or 1, sum(weights.values()) or 1
    for bucket in chosen.buckets:
        count = len(chosen.rows_by_bucket.get(bucket, ()))
        drawn = weights.get(bucket, 0) / drawings
        shown = f"{count:,}", f"{count / used:.1%}", f"{drawn:.1%}", f"{batches.get(bucket, 0):,}"
        table.add_row(f"{bucket[0]}x{bucket[1]}", *shown)
    return table


def _bad(messages: Sequence[str]) -> Table:
    table = _table("Bad samples, left out", "what is wrong")
    for message in messages[:LISTED]:
        table.add_row(message)
    return table


def _texts(config: ConfigDict, chosen: TrainingSet) -> list[tuple[str, str, str, bool]]:
    """Key, caption, English caption and whether it is native, of samples spread over the set."""
    rules, used, texts = caption_rules(config), chosen.first(len(chosen.kept)), []
    for number in used[:: max(1, len(used) // MEASURED)]:
        try:
            sample = chosen.source[int(number)]
            captions = rules(sample)
        except BadSample:
            continue
        texts.append((sample.key, captions.student[0], captions.teacher[0], captions.native))
    return texts


def _lengths(config: ConfigDict, texts: list[tuple[str, str, str, bool]]) -> Table:
    title = f"Length of {len(texts):,} captions"
    table = _table(title, "counted in", "median", "95 %", "longest", "cut off", "unknown")
    captions = [caption for _, caption, _, _ in texts]
    _add_lengths(table, "characters", np.array([len(caption) for caption in captions]))
    context, prefix = config.text_encoder.context_length, config.text_encoder.prefix
    for name in config.text_encoder.id.split(SEPARATOR):
        try:
            counts, unknown = _tokens(name, [prefix + caption for caption in captions])
        except PeaError as error:
            table.add_row(f"tokens of {name}: {error}")
        else:
            shares = f"{np.mean(counts > context):.1%}", "" if unknown is None else f"{np.mean(unknown):.1%}"
            _add_lengths(table, f"tokens of {name}, {context} at most", counts, *shares)
    return table


def _tokens(name: str, texts: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """How many tokens each text has, and whether it has letters that the tokenizer does not know, if that says it."""
    tokenizer = load_tokenizer_of(name)
    tokens = tokenizer.encode(texts, _LONGEST)
    unknown = (tokens["input_ids"] == tokenizer.unk_token_id) & (tokens["attention_mask"] == 1)
    return tokens["attention_mask"].sum(axis=1), None if tokenizer.unk_token_id is None else unknown.any(axis=1)


def _add_lengths(table: Table, unit: str, counts: np.ndarray, *shares: str) -> None:
    table.add_row(unit, *(f"{value:.0f}" for value in (*np.quantile(counts, (0.5, 0.95)), counts.max())), *shares)


def _examples(texts: list[tuple[str, str, str, bool]]) -> Table:
    table = _table("Some of them", "key", "student", "teacher", "learnt from")
    for key, student, teacher, native in texts:
        table.add_row(key, student, teacher, "the picture" if native else "the teacher")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        numbers = number and column not in ("fields", "student", "teacher", "learnt from")
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    return table
