"""The TFDS builder of `rotated_mnist`: prepares one data set in one of the report's settings, without TensorFlow."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from experiments.data import location
from experiments.data.download import obtain_files, way_out
from experiments.data.records import ArrayDigest, RecordEncoder, write_records
from experiments.data.rotation import copy_angles, rotated_copies
from experiments.data.sources import IMAGE_SIZE, Source, read_embedded, read_official
from experiments.settings import COPIES_PER_IMAGE, DATASETS, SETTINGS, SPLITS, Dataset

_BLOCK = 4096  # Upright images rotated and written at once: memory stays small, whatever the size of the data set.


@dataclasses.dataclass(eq=False)
class RotatedMnistConfig(tfds.core.BuilderConfig):
    """One data set, setting and data seed; the name is `location.config_name` of the three."""

    dataset: str = "mnist_5k"
    setting: int = 1
    data_seed: int = 0

    @classmethod
    def create(cls, dataset: str, setting: int, data_seed: int = 0) -> "RotatedMnistConfig":
        """The configuration with its name."""
        name = location.config_name(dataset, setting, data_seed)
        return cls(name=name, dataset=dataset, setting=setting, data_seed=data_seed)


class RotatedMnist(FileReaderBuilder):
    """MNIST, Fashion-MNIST or 5,000 digits of MNIST in one of the four settings.

    In a rotated split every image is kept and four copies follow it, each rotated by a whole number of degrees
    -90..89 (`rotation.copy_angles` states the rule). Splits train, validation and test keep the order of the
    source. Features: image uint8 `[28, 28, 1]`, label 0..9, angle in degrees, 0 for originals. The digest of
    each split's arrays is kept in the data set's metadata.

    A `FileReaderBuilder` with its own writing: TFDS's generator-based one spends 100 us on each example.
    """

    name = "rotated_mnist"
    VERSION = tfds.core.Version(location.VERSION)
    BUILDER_CONFIGS: ClassVar = [
        RotatedMnistConfig.create(dataset, setting) for dataset in DATASETS for setting in SETTINGS
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
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        del download_config
        dataset = DATASETS[self.builder_config.dataset]
        source = self._read_source(dataset, dl_manager)
        written = {split: self._write_split(split, *source.pop(split)) for split in SPLITS}
        self.info.metadata["sha256"] = {split: digest for split, (_, digest) in written.items()}
        self.info.set_splits(tfds.core.SplitDict([info for info, _ in written.values()]))

    def _read_source(self, dataset: Dataset, dl_manager) -> Source:
        if dataset.name == "mnist_5k":
            return read_embedded(dataset)

        def download(urls: dict[str, str]) -> dict[str, Path]:
            self._progress(f"fetching the four files of {dataset.name} into {self.data_dir_root / 'downloads'}")
            return dl_manager.download(urls)

        paths = obtain_files(self.data_dir_root, dataset.name, download)
        fix = f"replace it: {way_out(self.data_dir_root, dataset.name)}"
        return read_official(dataset, paths, fix)

    def _write_split(self, split: str, images: np.ndarray, labels: np.ndarray) -> tuple[tfds.core.SplitInfo, str]:
        """Write the one file of a split; returns its description and the digest of its arrays."""
        encoder = RecordEncoder(self.info.features, (IMAGE_SIZE, IMAGE_SIZE, 1))
        digest = ArrayDigest()

        def records() -> Iterator[bytes]:
            for block in self._blocks(split, images, labels):
                digest.add(*block)
                yield from encoder.encode_all(*block)

        template = self._get_filename_template(split_name=split)
        num_bytes = write_records(template.sharded_filepath(shard_index=0, num_shards=1), records())
        num_images = DATASETS[self.builder_config.dataset].num_images(split, self.builder_config.setting)
        return tfds.core.SplitInfo(split, [num_images], num_bytes, template), digest.hexdigest()

    def _blocks(self, split: str, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """The examples of a split in order, some thousands at once: images `[m, 28, 28]`, labels and angles `[m]`."""
        config = self.builder_config
        rotated = SETTINGS[config.setting].is_rotated(split)
        copies = COPIES_PER_IMAGE if rotated else 0
        angles = copy_angles(config.data_seed, config.dataset, split, len(images))[:, :copies]
        # The image itself is the first of its own copies, at angle 0.
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
