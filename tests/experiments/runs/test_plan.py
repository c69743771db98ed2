"""Which trainings a sweep makes, and where each stands in it."""

import pytest

from experiments.runs import plan
from experiments.runs.plan import Place, Planned
from experiments.settings import MODELS


def test_settings_that_train_on_the_same_images_share_a_training():
    assert plan.planned((1, 2, 3, 4), ("lenet",)) == [Planned("lenet", (1, 3)), Planned("lenet", (2, 4))]
    assert plan.planned((3,), ("lenet", "alexnet")) == [Planned("lenet", (3,)), Planned("alexnet", (3,))]
    assert str(Planned("lenet", (1, 3))) == "lenet, settings 1, 3"


@pytest.mark.parametrize("count", [1, 2, 4, 7, 20])
def test_shards_part_the_whole(count):
    models = ("lenet", "lenet_fconv", "alexnet")
    whole = plan.planned((1, 2, 3, 4), models)
    parts = [plan.planned((1, 2, 3, 4), models, (i, count)) for i in range(count)]
    assert sorted(map(str, whole)) == sorted(str(training) for part in parts for training in part)


def test_other_initial_weights_have_a_folder_of_their_own():
    assert plan.cell_name(4, "lenet", "mnist") == "setting4_lenet_mnist"
    assert plan.cell_name(4, "lenet", "mnist", "report") == "setting4_lenet_mnist"
    assert Planned("lenet", (1, 3)).folder_names("mnist_5k", "he") == (
        "setting1_lenet_mnist_5k_he", "setting3_lenet_mnist_5k_he",
    )  # fmt: skip


def test_the_order_of_settings_does_not_matter():
    assert plan.planned((4, 3, 2, 1), ("lenet",)) == plan.planned((1, 2, 3, 4), ("lenet",))


def test_places_tell_how_much_is_to_come():
    planned = plan.planned((1, 2, 3, 4), ("lenet", "lenet_fconv"))
    places = plan.places(planned, "mnist_5k")
    # Upright, rotated (five times as many images), upright, rotated.
    assert [place.later for place in places] == [11.0, 6 / 5, 5.0, 0.0]
    assert [(place.number, place.count) for place in places] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    # LeNet has the report's 200 epochs, the invariant network 8 of its own.
    planned = plan.planned((1,), ("lenet", "lenet_fconv_invariant"))
    cost = MODELS["lenet_fconv_invariant"].cost
    assert [place.later for place in plan.places(planned, "mnist_5k")] == [cost * 8 / 200, 0.0]
    assert [place.later for place in plan.places(planned, "mnist_5k", 2)] == [cost, 0.0]
    assert Place(1, 4, 11.0).seconds_left(30.0, 60.0) == 690.0
