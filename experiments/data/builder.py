"""The TFDS builder of `rotated_mnist`, without TensorFlow: one data set in one of the report's settings.

A record is what TFDS itself makes of an example, a serialised `tf.train.Example`, so any TFDS reader understands the
files. TFDS's generic code needs about 100 us to write one and 30 us to read one, the code here about 10 us each.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder
from tensorflow_datasets.proto import tf_example_pb2

from experiments.data import mnist_rot, sources
from experiments.data.files import IMAGE_SIZE, way_out
from experiments.data.rotation import copy_angles, rotated_copies
from experiments.data.sources import Source, obtain_files, read_embedded, read_official
from experiments.settings import COPIES_PER_IMAGE, DATASETS, SETTINGS, SPLITS, Dataset

_READ_AT_ONCE = 8192
_READ_AHEAD = "readahead_buffer_size:4194304"  # In bytes; TFDS's default takes three times longer.
_MARK = b"\xa5"
_PARSE = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue] (made by protobuf)


class RecordEncoder:
    """Turns examples into records: pixels framed by bytes that depend on label and angle only.

    TFDS serialises each pair of label and angle once, around a marked image; what stands before and after the image
    is then used for every image of this pair.
    """

    def __init__(self, features: tfds.features.FeaturesDict, image_shape: tuple[int, ...]):
        self._features = features
        self._image_shape = image_shape
        self._frames: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    def encode_all(self, images: np.ndarray, labels: np.ndarray, angles: np.ndarray) -> Iterator[bytes]:
        """The records of examples: images uint8 `[n, ...]`, labels and angles `[n]`."""
        pixels = images.tobytes()
        size = len(pixels) // len(images)
        for i, key in enumerate(zip(labels.tolist(), angles.tolist(), strict=True)):
            frame = self._frames.get(key)
            if frame is None:
                frame = self._frames[key] = self._make_frame(*key)
            yield frame[0] + pixels[i * size : (i + 1) * size] + frame[1]

    def _make_frame(self, label: int, angle: int) -> tuple[bytes, bytes]:
        image = np.full(self._image_shape, _MARK[0], np.uint8)
        record = self._features.serialize_example({"image": image, "label": label, "angle": angle})
        before, after = record.split(_MARK * image.size)
        return before, after


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """Write an ArrayRecord file; returns the number of bytes of its records."""
    # Not compressed: that would hardly shrink a record of one image, and make reading and writing four times slower.
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    num_bytes = 0
    try:
        for record in records:
            writer.write(record)
            num_bytes += len(record)
    finally:
        writer.close()
    return num_bytes


def read_records(path: Path, images: np.ndarray, labels: np.ndarray, angles: np.ndarray) -> None:
    """Read an ArrayRecord file into arrays whose length is the number of its records.

    Fills images uint8 `[n, ...]`, labels and angles int32 `[n]`.

    Raises:
      ValueError: the file holds another number of records, or an image of another size. A damaged file raises
        whatever ArrayRecord and protobuf raise.
    """
    reader = ArrayRecordReader(str(path), options=_READ_AHEAD)
    if reader.num_records() != len(images):
        raise ValueError(f"{path} holds {reader.num_records()} records instead of {len(images)}")
    for start in range(0, len(images), _READ_AT_ONCE):
        stop = min(start + _READ_AT_ONCE, len(images))
        parsed = [_PARSE(record).features.feature for record in reader.read(start, stop)]
        pixels = b"".join([example["image"].bytes_list.value[0] for example in parsed])
        images[start:stop] = np.frombuffer(pixels, np.uint8).reshape(images[start:stop].shape)
        labels[start:stop] = [example["label"].int64_list.value[0] for example in parsed]
        angles[start:stop] = [example["angle"].int64_list.value[0] for example in parsed]
    reader.close()


class ArrayDigest:
    """Digest of a split's arrays, added in pieces of any length: images, labels and angles are hashed side by side."""

    def __init__(self):
        self._parts = [hashlib.sha256() for _ in range(3)]

    def add(self, images: np.ndarray, labels: np.ndarray, angles: np.ndarray) -> None:
        """Add the next examples: uint8 `[n, ...]`, whole numbers `[n]` and `[n]`."""
        for part, array, dtype in zip(self._parts, (images, labels, angles), ("u1", "<i4", "<i4"), strict=True):
            part.update(np.ascontiguousarray(array, dtype).data)

    def hexdigest(self) -> str:
        """sha256 over the sha256 of the images, of the labels and of the angles (both as little-endian int32)."""
        return hashlib.sha256(b"".join(part.digest() for part in self._parts)).hexdigest()


_BLOCK = 4096  # Upright images rotated and written at once: memory stays small, whatever the size of the data set.


@dataclasses.dataclass(eq=False)
class RotatedMnistConfig(tfds.core.BuilderConfig):
    """One data set, setting and data seed; the name is `sources.config_name` of the three."""

    dataset: str = "mnist_5k"
    setting: int = 1
    data_seed: int = 0

    @classmethod
    def create(cls, dataset: str, setting: int, data_seed: int = 0) -> "RotatedMnistConfig":
        """The configuration with its name."""
        name = sources.config_name(dataset, setting, data_seed)
        return cls(name=name, dataset=dataset, setting=setting, data_seed=data_seed)


class RotatedMnist(FileReaderBuilder):
    """MNIST, Fashion-MNIST or 5,000 digits of MNIST in one of the four settings; mnist-rot, and one like it.

    In a rotated split every image is kept and four copies follow it, each rotated by a whole number of degrees
    -90..89 (`rotation.copy_angles` states the rule). Splits train, validation and test keep the order of the
    source. Features: image uint8 `[28, 28, 1]`, label 0..9, angle in degrees, 0 for originals. The digest of
    each split's arrays is kept in the data set's metadata.

    A `FileReaderBuilder` with its own writing: TFDS's generator-based one spends 100 us on each example.
    """

    builder_config: RotatedMnistConfig  # pyright: ignore[reportIncompatibleMethodOverride] (says which one)
    name = "rotated_mnist"
    VERSION = tfds.core.Version(sources.VERSION)
    BUILDER_CONFIGS: ClassVar = [
        RotatedMnistConfig.create(name, setting) for name, facts in DATASETS.items() for setting in facts.settings
    ]

    def __init__(self, *, progress: Callable[[str], None] | None = None, **kwargs):
        """Make the builder; `progress` is called with a line of text now and then while preparing."""
        super().__init__(**kwargs | {"file_format": "array_record"})
        self._progress = progress or (lambda line: None)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Tensor(shape=(IMAGE_SIZE, IMAGE_SIZE, 1), dtype=np.uint8, encoding="bytes"),
            "label": tfds.features.ClassLabel(num_classes=10),
            "angle": np.int32,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__ or "",  # `python -OO` removes docstrings
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        del download_config
        dataset = DATASETS[self.builder_config.dataset]
        source = self._read_source(dataset, dl_manager)
        written = {split: self._write_split(split, *source.pop(split)) for split in SPLITS}
        cast(dict, self.info.metadata)["sha256"] = {split: digest for split, (_, digest) in written.items()}
        self.info.set_splits(tfds.core.SplitDict([info for info, _ in written.values()]))

    def _read_source(self, dataset: Dataset, dl_manager) -> Source:
        root = Path(self.data_dir_root)
        if dataset.name == "mnist_5k":
            return read_embedded(dataset)
        if dataset.name == "mnist_rot":
            return mnist_rot.read(root, dataset, read_embedded(DATASETS["mnist_5k"]), self._progress)
        if dataset.name == "mnist_rot_like":
            mnist = self._read_source(DATASETS[dataset.source or ""], dl_manager)
            return mnist_rot.make_like(dataset, mnist, self.builder_config.data_seed)

        def download(urls: dict[str, str]) -> dict[str, Path]:
            self._progress(f"fetching the four files of {dataset.name} into {root / 'downloads'}")
            return dl_manager.download(urls)

        paths = obtain_files(root, dataset.name, download)
        fix = f"replace it: {way_out(root, dataset.name)}"
        return read_official(dataset, paths, fix)

    def _write_split(self, split: str, images: np.ndarray, labels: np.ndarray) -> tuple[tfds.core.SplitInfo, str]:
        """Write the one file of a split; returns its description and the digest of its arrays."""
        encoder = RecordEncoder(cast(tfds.features.FeaturesDict, self.info.features), (IMAGE_SIZE, IMAGE_SIZE, 1))
        digest = ArrayDigest()

        def records() -> Iterator[bytes]:
            for block in self._blocks(split, images, labels):
                digest.add(*block)
                yield from encoder.encode_all(*block)

        template = self._get_filename_template(split_name=split)
        num_bytes = write_records(Path(template.sharded_filepath(shard_index=0, num_shards=1)), records())
        num_images = DATASETS[self.builder_config.dataset].num_images(split, self.builder_config.setting)
        return tfds.core.SplitInfo(split, [num_images], num_bytes, template), digest.hexdigest()

    def _blocks(self, split: str, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """The examples of a split in order, some thousands at once: images `[m, 28, 28]`, labels and angles `[m]`."""
        config = self.builder_config
        rotated = SETTINGS[config.setting].is_rotated(split)
        copies = COPIES_PER_IMAGE if rotated else 0
        angles = copy_angles(config.data_seed, config.dataset, split, len(images))[:, :copies]
        # The first copy is the image itself, at angle 0.
        angles = np.concatenate([np.zeros((len(images), 1), np.int32), angles], axis=1)
        for start in range(0, len(images), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._progress(f"preparing {config.name}: {split}, {start * (1 + copies):,} of {angles.size:,} images")
            pixels = rotated_copies(images[block], angles[block, 1:]) if rotated else images[block]
            pixels = pixels.reshape(-1, IMAGE_SIZE, IMAGE_SIZE)
            yield pixels, np.repeat(labels[block], 1 + copies), angles[block].ravel()

    def _log_download_bytes(self) -> None:
        """TFDS prints on stdout here; `progress` says what there is to say."""

    _log_download_done = _log_download_bytes
