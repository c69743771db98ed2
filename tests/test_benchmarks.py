"""What benchmarks keep of earlier calls, pages of little, and what a choice is."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import choices_page, errors, input_turns, invariant_choices, test_selection


def test_accuracies_of_a_training_are_kept_and_those_of_another_go():
    now = {"config": {"epochs": 8}, "command": "this"}
    first = test_selection.merged({}, now, 6, [0.9])
    assert test_selection.merged(first, now, 7, [0.8]) == {**now, "test_accuracy": {"6": [0.9], "7": [0.8]}}
    older = {"config": {"epochs": 8}, "test_accuracy": {"6": [0.9]}}
    now |= {"config": {"epochs": 8, "l2": 0.0, "augmentation": "none"}}
    assert test_selection.merged(older, now, 7, [0.8])["test_accuracy"] == {"6": [0.9], "7": [0.8]}
    other = {"config": {"epochs": 4}, "command": "another"}
    assert test_selection.merged(first, other, 2, [0.5]) == {**other, "test_accuracy": {"2": [0.5]}}


def test_columns_of_the_same_weights_are_kept_and_those_of_others_go():
    before = {"digest": "a", "accuracy": {"0": {"upright": 1}, "0, 45": {"upright": 2}}, "how": ["x"], "number": 5}
    now = {"digest": "a", "accuracy": {"0, 45": {"worst": 3}}, "how": ["y"]}
    both = input_turns._merged(before, now)
    assert both["accuracy"] == {"0": {"upright": 1}, "0, 45": {"upright": 2, "worst": 3}}
    assert (both["how"], both["number"]) == (["x", "y"], 5)
    assert input_turns._merged(before | {"digest": "b"}, now) == now
    chosen = input_turns._merged(before, {"digest": "a", "validation": {"0": {"upright": 4}}, "how": ["z"]})
    assert (chosen["accuracy"], chosen["validation"]["0"], chosen["how"]) == (
        before["accuracy"],
        {"upright": 4},
        ["x", "z"],
    )


def test_the_page_of_input_angles_shows_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(input_turns, "PAGE", tmp_path / "page.md")
    value = {"mean": 0.5, "std": None}
    found = input_turns._merged({}, {"digest": "a", "seeds": "0", "validation": {"0°": {"0°": value}}, "how": ["x"]})
    input_turns.write_page({"run": found})
    page = (tmp_path / "page.md").read_text()
    assert "validation digits, which may choose:\n\n| input at | 0° |\n|---|---|\n| 0° | 0.5000 |" in page
    assert "test images:" not in page
    input_turns.write_page({"run": found | {"accuracy": {"0°": {input_turns.WORST: value | {"angle": 20}}}}})
    assert "| 0° | 0.5000 (at 20°) |" in (tmp_path / "page.md").read_text()


def test_a_goal_is_reached_from_the_side_that_is_better():
    uniform = {name: {"mean": value} for name, value in zip(input_turns.UNIFORM, (0.9879, 0.988), strict=True)}
    run = {"accuracy": {"0°, 45°": {"0°": {"mean": 0.9899}, **uniform}}}
    error = {"accuracy": {"0°, 45°": {"mnist_rot_like, setting 1": {"mean": 0.988}}}}
    found = {input_turns.PACKAGED: run, "setting1_lenet_fconv_invariant_mnist_rot_like": error}
    lines = [line.strip("| ").split(" | ") for line in input_turns.goals(found).splitlines()[2:]]
    assert [(value, reached) for _, value, _, reached in lines] == [
        ("0.9879", "**no**"), ("0.9880", "at least"), ("0.0020", "the aim"), ("0.0120", "at least")
    ]  # fmt: skip


def answers(said):
    """Probabilities `[angle, image, class]`, nearly 1 for the class that is said."""
    return np.broadcast_to(0.9 * np.eye(10)[said] + 0.01, (len(errors.ANGLES), len(said), 10))


def test_the_page_of_errors_of_a_network_with_few_or_none():
    labels, images = np.array([6, 9, 3]), np.zeros((3, 28, 28, 1), np.uint8)
    page = errors.page("command", "name", answers(labels)[None], labels, 2e-7)
    assert "Wrong at a given angle: 0.00%" in page
    assert "nan" not in page
    assert "move the logits of no seed by more than 2.0e-07" in page
    found = answers([6, 6, 3])
    page = errors.page("command", "name", found[None], labels, 0.0)
    assert (
        "- 1.0 digits are wrong at every angle: rotation is not the cause. They make 100% of a seed's errors." in page
    )
    assert "| 6 and 9 | 100.0% |" in page
    assert "| 9, all angles | 0.00% | 100.00% | 0.00% |" in page
    figure = errors.draw(found, images, labels)
    assert [axis.get_title().splitlines()[0] for axis in figure.axes if axis.get_title()] == ["9 at -45°: 6, 91%"]


def test_the_page_of_errors_has_the_spread_over_seeds():
    labels = np.array([6, 9, 3])
    page = errors.page("command", "name", np.stack([answers(labels), answers([6, 6, 3])]), labels, 0.0)
    assert "2 seeds of `name`" in page
    assert "Wrong at a given angle: 16.67% ± 23.57% of the digits" in page
    assert "0 are wrong at every angle for every seed" in page
    assert "| 9, upright | 50.00% ± 70.71% | 50.00% ± 70.71% | 0.00% ± 0.00% |" in page
    assert "| 6 and 9 | 50.0% ± 70.7% |" in page


class Counter(SimpleNamespace):
    """A trainer of 8 steps an epoch, whose parameter is the number of steps."""

    layout = SimpleNamespace(steps_per_call=2)

    def init(self):
        return {"params": {"w": jnp.zeros(3)}, "stats": {}}

    def num_steps(self, data):
        return 8

    def orders(self, data, epoch):
        return None

    def steps(self, states, orders, data, epoch, step, count):
        return {**states, "params": {"w": states["params"]["w"] + count}}, None, count


@pytest.mark.parametrize(("averaged", "expected"), [(0.0, 16), (0.25, (14 + 16) / 2), (1.0, 9)])
def test_the_weights_of_a_choice_are_the_last_or_a_mean(averaged, expected):
    found = invariant_choices._weights(Counter(), None, 2, averaged)
    np.testing.assert_allclose(found[0]["w"], np.full(3, expected), rtol=1e-6)


def test_images_of_another_size_show_the_same():
    images = np.tile(np.arange(0, 224, 8, dtype=np.uint8)[None, :, None, None], (2, 1, 28, 1))
    assert invariant_choices._resized(images, 28) is images
    found = invariant_choices._resized(images, 56)
    assert (found.shape, found.dtype) == ((2, 56, 56, 1), np.uint8)
    np.testing.assert_allclose(found[0, 2:-2, 0, 0], np.arange(2, 54) * 4 - 2.0, atol=1)


def test_choices_are_compared_with_what_they_change():
    names = list(invariant_choices.CHOICES)
    bases = [choices_page.base(name, names) for name in names]
    assert bases[0] is None
    assert set(bases[1:]) <= set(names)
    accuracies = {names[0]: 0.9, names[1]: 0.95, "+ blurred pools": 0.9, "blurred pools, and initial weights `he`": 0.8}
    choices = {
        name: {"accuracy": {"0": mean, "45": mean - 0.1}, "deviation": {"0": 0.01}, "num_parameters": 5,
               "seconds": None, "device": "a machine, 2 cores, jax 1, commit abc"}
        for name, mean in accuracies.items()
    }  # fmt: skip
    found = [("mnist", invariant_choices.PROTOCOLS["mnist"], {"choices": choices, "command": "this"})]
    rows = {
        row.split(" | ")[0][2:]: row for row in choices_page.text(found, names).splitlines() if row.startswith("| ")
    }
    assert rows[names[1]].endswith("| 2 | 0.950 ± 0.010 | 0.850 | 0.100 | +0.050 | +0.050 | abc |")
    assert rows["+ blurred pools"].endswith("| 0.100 |  |  | abc |")
    assert "| -0.100 | -0.100 |" in rows["blurred pools, and initial weights `he`"]
