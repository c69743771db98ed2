"""The page of the field's own test."""

import json

import pytest

from experiments.reporting import gathering, mnist_rot_page
from experiments.rules import InputError
from tests.experiments import helpers

OPTIONS = "--setting 1 --model stack_c8 --dataset mnist_rot_like --epochs 3"
CLAIMS = {
    "setting1_stack_c8_mnist_rot_like": {
        "test_accuracy": {"2": [0.98, 0.95], "3": [0.97, 0.96]},
        "best_digest": "ab",
    }
}


def cells(tmp_path, dataset="mnist_rot_like", **more):
    more = {"num_parameters": 98_858, "best_digest": "ab", "command": f"python -m experiments.run {OPTIONS}"} | more
    cell = helpers.cell("stack_c8", 1, accuracy=(0.97, 0.95), seeds=(0, 4), **{"failed": (), **more})
    return {tmp_path / "cell": cell | {"dataset": dataset}}


def line(tmp_path, kept, claims):
    """The table's line."""
    assert mnist_rot_page.write(tmp_path, kept, claims) == ["mnist-rot.md"]
    text = (tmp_path / "mnist-rot.md").read_text()
    assert f"`python -m experiments.run {OPTIONS}" in text
    (found,) = [row for row in text.splitlines() if row.startswith("| mnist_rot")]
    return found


def test_errors_are_those_chosen_on_validation_digits_beside_what_the_test_digits_would_have_chosen(tmp_path):
    found = line(tmp_path, cells(tmp_path), CLAIMS)
    assert "| `stack_c8` | 98,858 |" in found
    assert found.endswith("| 2 | 4.00 ± 1.41 % | 3.00 ± 1.41 % |")


def test_an_epoch_before_those_that_were_tested_can_be_the_best(tmp_path):
    claims = {name: claim | {"test_accuracy": {"3": [0.96, 0.96]}} for name, claim in CLAIMS.items()}
    assert line(tmp_path, cells(tmp_path), claims).endswith("| 4.00 ± 1.41 % | 3.50 ± 0.71 % |")


def test_a_claim_of_another_run_is_not_shown(tmp_path):
    (name, claim), *_ = CLAIMS.items()
    for digest, claims in (("cd", CLAIMS), ("ab", {name: claim | {"best_digest": None}})):
        kept = cells(tmp_path, best_digest=digest)
        mnist_rot_page.write(tmp_path, kept, claims)
        assert "| 4.00 ± 1.41 % | not run here |" in (tmp_path / "mnist-rot.md").read_text()
    assert line(tmp_path, cells(tmp_path), {}).endswith("| not run here |")


def test_a_seed_that_failed_is_left_out_of_both(tmp_path):
    kept = cells(tmp_path)
    kept[tmp_path / "cell"] |= {"failed_seeds": [4]}
    assert line(tmp_path, kept, CLAIMS).endswith("| 1 | 3.00 % | 2.00 % |")


def test_without_a_run_of_rotated_digits_there_is_no_page(tmp_path):
    assert mnist_rot_page.write(tmp_path, cells(tmp_path, dataset="mnist"), CLAIMS) == []
    assert not (tmp_path / "mnist-rot.md").exists()


def test_claims_that_cannot_be_read_are_refused(tmp_path):
    claims = tmp_path / mnist_rot_page.CLAIMS
    claims.parent.mkdir(parents=True)
    assert gathering.read_claims(claims) == {}
    claims.write_text(json.dumps(CLAIMS))
    assert gathering.read_claims(claims) == CLAIMS
    odd = ({}, {"2": [0.5, None]}, {"2": [0.5], "3": []}, 3)
    for text in ("{", "[]", '{"a": {}}', *(json.dumps({"a": {"test_accuracy": one}}) for one in odd)):
        claims.write_text(text)
        with pytest.raises(InputError, match="cannot be read"):
            gathering.read_claims(claims)
