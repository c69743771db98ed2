"""Says where a network loses rotations: each stage's equivariance error, and the first that breaks quarter turns.

python -m experiments.audit --model alexnet_fconv
python -m experiments.audit checkpoints/setting3_lenet_fconv_mnist_5k
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arguments, backends, folders
from experiments.arguments import InputError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m experiments.audit", description=__doc__.splitlines()[0])
    result.add_argument(
        "run_dir", metavar="RUN_DIR", nargs="?", type=Path, help="folder of a finished run (first seed)"
    )
    arguments.add_model_option(result)
    result.add_argument("--init", choices=["report", "he"], help="initial weights of --model (default report)")
    result.add_argument("--data-dir", metavar="DIR", help="where data are kept (default: TFDS's own folder)")
    result.add_argument(
        "--output", metavar="DIR", type=Path, help="for audit.json and audit.png (default: RUN_DIR; none with --model)"
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    if (options.run_dir is None) == (options.model is None):
        command.error("name either a run's folder or --model NAME")
    if options.run_dir is not None and options.init is not None:
        command.error("--init goes with --model: a run has its own weights")
    backends.configure(options.model or folders.model_of(options.run_dir))
    from experiments import session  # imports jax, after its flags are set

    line = arguments.command_line("experiments.audit", argv)
    return session.guarded(command, lambda: audit(options, line))


def audit(options: argparse.Namespace, line: str) -> None:
    """Prints the audit of a network on test digits and writes it.

    Raises:
      InputError: no such folder, or one that cannot be written.
    """
    import jax.numpy as jnp
    from flax import nnx

    import fconv_jax
    from experiments.data import load
    from experiments.evaluation import Evaluator

    if options.run_dir is not None and not options.run_dir.is_dir():
        raise InputError(f"{options.run_dir} is not a folder: name the folder of a finished run")
    if options.model:
        init = options.init or "report"
        title = f"{options.model}, initial weights ({init})"
        model = fconv_jax.models.create(options.model, init=init, rngs=nnx.Rngs(0))
    else:
        evaluator = Evaluator(options.run_dir)
        config = evaluator.config
        title = f"{config.model}, setting {config.setting}, {config.dataset}, seed {config.seeds[0]}"
        model = evaluator.model(0)
    digits = load("mnist_5k", 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    chosen = digits.images[:: max(1, len(digits.labels) // 20)]  # two of each class: they are sorted
    images = jnp.asarray(chosen, jnp.float32) / 255
    report = fconv_jax.audit(model, images.shape[1:], images=images)
    print(f"{title}: relative errors at quarter turns (so far; the stage alone) and at free angles; signal")
    print(report)
    output = options.output or options.run_dir
    if output is not None:
        _write(output, report, title, line)


def _write(output, report, title, line):
    import dataclasses

    from experiments.plots import plot_audit
    from experiments.results import write_json

    try:
        output.mkdir(parents=True, exist_ok=True)
        stages = [dataclasses.asdict(stage) for stage in report.stages]
        contents = {"title": title, "command": line, "breaking": [stage.name for stage in report.breaking]}
        write_json(output / "audit.json", {**contents, "stages": stages})
        plot_audit(output / "audit.png", title, report)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror}): choose another --output") from error
    print(f"saved in {output}/: audit.json, audit.png")


if __name__ == "__main__":
    sys.exit(main())
