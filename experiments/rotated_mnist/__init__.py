"""The data set `rotated_mnist`: MNIST and its relatives with turned copies of every image.

The TFDS builder is `experiments.rotated_mnist.builder.RotatedMnist`; it is not imported here because TFDS takes
most of a second to import. Programs load the data with `experiments.data.load`.
"""

from experiments.rotated_mnist.rotation import rotate_images

__all__ = ["rotate_images"]
