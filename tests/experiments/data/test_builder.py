"""The quick records are TFDS's own records."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.data.builder import (
    ArrayDigest,
    RecordEncoder,
    RotatedMnist,
    RotatedMnistConfig,
    read_records,
    write_records,
)
from experiments.settings import DATASETS, SETTINGS

SHAPE = (28, 28, 1)


@pytest.fixture
def features(tmp_path):
    return RotatedMnist(config="mnist_5k_setting1_seed0", data_dir=tmp_path).info.features


@pytest.fixture
def examples():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (400, *SHAPE), np.uint8)
    images[0] = 0xA5  # The encoder's own mark must not confuse it.
    return images, generator.integers(0, 10, 400, np.int32), generator.integers(-90, 90, 400, np.int32)


def test_encoded_records_parse_as_tfds_examples(features, examples):
    records = list(RecordEncoder(features, SHAPE).encode_all(*examples))
    for record, image, label, angle in zip(records, *examples, strict=True):
        parsed = features.deserialize_example_np(record)
        np.testing.assert_array_equal(parsed["image"], image)
        assert (parsed["label"], parsed["angle"]) == (label, angle)


def test_records_written_and_read(features, examples, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.data.builder._READ_AT_ONCE", 150)
    path = tmp_path / "records"
    size = write_records(path, RecordEncoder(features, SHAPE).encode_all(*examples))
    assert size > 400 * 784
    read = [np.zeros_like(array) for array in examples]
    read_records(path, *read)
    for array, expected in zip(read, examples, strict=True):
        np.testing.assert_array_equal(array, expected)
    with pytest.raises(ValueError, match="holds 400 records instead of 399"):
        read_records(path, *[array[1:] for array in read])


def test_tfds_own_reader_reads_the_prepared_files(tmp_path):
    builder = RotatedMnist(config="mnist_5k_setting3_seed0", data_dir=tmp_path)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        "train": 3500,
        "validation": 2500,
        "test": 5000,
    }
    source = builder.as_data_source(split="test")
    first = source[0]
    assert first["image"].shape == SHAPE
    assert first["image"].dtype == np.uint8
    assert [source[i]["angle"] == 0 for i in range(6)] == [True, False, False, False, False, True]
    assert {source[i]["label"] for i in range(500)} == {0}


def test_digest_depends_on_every_array_and_not_on_the_pieces(examples):
    def digest(*pieces):
        result = ArrayDigest()
        for piece in pieces:
            result.add(*piece)
        return result.hexdigest()

    whole = digest(examples)
    assert digest([array[:7] for array in examples], [array[7:] for array in examples]) == whole
    for k in range(3):
        changed = [array.copy() for array in examples]
        changed[k][-1] += 1
        assert digest(changed) != whole


def test_every_dataset_and_setting_is_a_listed_configuration():
    again = {"mnist_rot": "_r2", "mnist_rot_like": "_r2"}  # prepared by a second rule
    expected = {
        f"{name}_setting{n}_seed0{again.get(name, '')}" for name, facts in DATASETS.items() for n in facts.settings
    }
    assert set(RotatedMnist.builder_configs) == expected
    assert expected > {f"mnist_setting{n}_seed0" for n in SETTINGS}
    assert RotatedMnistConfig.create("mnist", 2, 7).name == "mnist_setting2_seed7"
