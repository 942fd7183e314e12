"""Convert tar shards, or any other data that training reads, to a tensorflow-datasets folder; needs no TensorFlow.

    python -m pea_jax.data.to_tfds --train 'shards/{00000..00099}.tar' --out DIR

Training then takes DIR, or DIR:SPLIT, in place of the shards.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import signal
import sys
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from pea_jax.data import array_records
from pea_jax.data.captions import flag
from pea_jax.data.samples import Sample
from pea_jax.data.sources import open_source
from pea_jax.data.storage import is_remote
from pea_jax.data.text_cleaning import is_unicode
from pea_jax.data.tfds_source import CAPTION, INFO, import_tfds
from pea_jax.data.webdataset import check_quoted
from pea_jax.errors import PeaError
from pea_jax.report import console, spare_letters, track

_NAME = "pea_captions"
_FILES = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def main() -> None:
    args = _arguments()
    spare_letters()
    try:
        check_quoted(sys.argv, ("--train", "--validation"))
        if not args.out or args.out.startswith("~") or is_remote(args.out):  # the shell's ~ wants a space before it
            raise PeaError(f"--out {args.out!r}: must be a folder on a disk; write its whole path")
        patterns = {split: value for split in ("train", "validation") if (value := getattr(args, split))}
        counts = convert(patterns, args.out, workers=args.workers, shard_size=args.shard_size)
    except PeaError as error:
        print("error:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(1)
    console.print(f"{args.out}: {', '.join(f'{count} samples in {split}' for split, count in counts.items())}")


def convert(patterns: Mapping[str, str], out: str, *, workers: int = 1, shard_size: int = 10_000) -> dict[str, int]:
    """Writes the samples of each split, in their order, in files of `shard_size`; the number in each split.

    Raises:
      PeaError: a source cannot be opened, a sample cannot be read, `out` holds such a folder already or cannot be
        written, a number is less than 1, or a process was ended from outside.
    """
    for name, number in dict(workers=workers, shard_size=shard_size).items():
        if number < 1:
            raise PeaError(f"--{name} {number}: must be at least 1")
    tfds = import_tfds(out)
    if any(os.path.exists(f"{out}/{name}") for name in INFO):
        raise PeaError(f"{out}: holds a tensorflow-datasets folder already; name another")
    try:
        pathlib.Path(out).mkdir(parents=True, exist_ok=True)
        splits = [_write_split(split, value, out, workers, shard_size) for split, value in patterns.items()]
        tfds.folder_dataset.write_metadata(
            data_dir=out, features=_features(), split_infos=splits, check_data=False, description=__doc__.split("\n")[0]
        )
    except OSError as error:
        raise PeaError(
            f"{out}: cannot be written ({error.strerror or error}); make room or name another folder"
        ) from error
    return {split.name: split.num_examples for split in splits}


def _features() -> Any:
    from tensorflow_datasets import features

    return features.FeaturesDict(
        {
            "key": features.Text(),
            "image": features.Image(),
            "captions": features.Sequence({"language": features.Text(), "text": features.Text()}),
            "native": features.Scalar(np.bool_),
            "width": features.Scalar(np.int32),
            "height": features.Scalar(np.int32),
            "scores": features.Sequence({"name": features.Text(), "value": features.Scalar(np.float32)}),
            "record": features.Text(),
        }
    )


def _example(sample: Sample) -> dict[str, Any]:
    if not sample.has_picture:
        raise PeaError(f"{sample.shard}: texts without pictures; leave them out, training takes the table beside DIR")
    width, height = sample.size()
    captions = {name: value for name, value in sample.record.items() if _is_caption(name, value)}
    rest = {name: value for name, value in sample.record.items() if name not in captions}
    return dict(
        key=sample.key,
        image=sample.image,
        captions=[dict(language=name.removeprefix(CAPTION), text=text) for name, text in captions.items()],
        native=flag(sample.record.get("native"), False),
        width=width,
        height=height,
        scores=[dict(name=name, value=value) for name, value in rest.items() if isinstance(value, float)],
        record=json.dumps(rest),
    )


def _is_caption(name: str, value: Any) -> bool:
    return name.startswith(CAPTION) and isinstance(value, str) and is_unicode(name + value)  # `record` keeps the others


def _write_split(split: str, patterns: str, out: str, workers: int, shard_size: int) -> Any:
    from tensorflow_datasets import core

    count = len(open_source(patterns))
    template = core.ShardedFileTemplate(
        dataset_name=_NAME, split=split, filetype_suffix="array_record", data_dir=out, template=_FILES
    )
    shards = -(-count // shard_size)
    if not shards:
        raise PeaError(f"{patterns}: no samples; leave {split} out")
    tasks = [
        (
            patterns,
            str(template.sharded_filepath(shard_index=number, num_shards=shards)),
            number * shard_size,
            shard_size,
        )
        for number in range(shards)
    ]
    sizes = _in_parallel(tasks, workers, f"writing {split}")
    lengths = [min(shard_size, count - number * shard_size) for number in range(shards)]
    return core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=sum(sizes), filename_template=template)


def _in_parallel(tasks: list[tuple], workers: int, description: str) -> list[int]:
    if workers == 1:
        return [_write_shard(task) for task in track(tasks, description)]
    spawn = multiprocessing.get_context("spawn")  # threads of this process do not survive a fork
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(tasks)), spawn, _end_without_a_word) as pool:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the processes begin with that
        futures = [pool.submit(_write_shard, task) for task in tasks]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            return [future.result() for future in track(futures, description)]
        except BrokenProcessPool as error:
            reason = "one of the processes was ended from outside, for lack of memory perhaps"
            raise PeaError(f"{description}: {reason}; start again with fewer --workers") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_without_a_word() -> None:
    """After Ctrl-C, which a terminal sends to all processes; the first of them tells it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _write_shard(task: tuple[str, str, int, int]) -> int:
    """The bytes of one file."""
    patterns, path, start, count = task
    source, features = open_source(patterns), _features()
    samples = (source[number] for number in range(start, min(start + count, len(source))))
    array_records.write(path, (features.serialize_example(features.encode_example(_example(one))) for one in samples))
    return os.path.getsize(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="patterns of the training set, as in config.data.train")
    parser.add_argument("--validation", default="", help="patterns of the held-out set")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--shard_size", type=int, default=10_000, help="samples a file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
