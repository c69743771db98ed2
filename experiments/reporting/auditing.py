"""The audit of a network on test digits, printed, written and drawn."""

import dataclasses
from argparse import Namespace

import jax.numpy as jnp
from flax import nnx

import fconv_jax
from experiments import data
from experiments.reporting.plots import plot_audit
from experiments.rules import InputError
from experiments.runs import folder as folders
from experiments.runs.best import Evaluator
from experiments.runs.files import write_json


def audit(options: Namespace, command: str) -> None:
    """Audits as the options of `experiments.audit` say.

    Raises:
      InputError: no such folder, or one that cannot be written.
    """
    if options.run_dir is not None and not options.run_dir.is_dir():
        raise InputError(f"{options.run_dir} is not a folder: name the folder of a finished run")
    title, model = _model(options)
    digits = data.load("mnist_5k", 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    chosen = digits.images[:: max(1, len(digits.labels) // 20)]  # two of each class: they are sorted
    images = jnp.asarray(chosen, jnp.float32) / 255
    found = fconv_jax.audit(model, images.shape[1:], images=images)
    print(f"{title}: relative errors at quarter turns (so far; the stage alone) and at free angles; signal")
    print(found)
    output = options.output or options.run_dir
    if output is None:
        return
    with folders.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        stages = [dataclasses.asdict(stage) for stage in found.stages]
        contents = {"title": title, "command": command, "breaking": [stage.name for stage in found.breaking]}
        write_json(output / folders.AUDIT, {**contents, "stages": stages})
        plot_audit(output / folders.AUDIT_PLOT, title, found)
    print(f"saved in {output}/: audit.json, audit.png")


def _model(options):
    """A title and the network: one by name with initial weights, or that of a run."""
    if options.model:
        init = options.init or "report"
        model = fconv_jax.models.create(options.model, init=init, rngs=nnx.Rngs(0))
        return f"{options.model}, initial weights ({init})", model
    evaluator = Evaluator(options.run_dir)
    config = evaluator.config
    title = f"{config.model}, setting {config.setting}, {config.dataset}, seed {config.seeds[0]}"
    return title, evaluator.model(0)
