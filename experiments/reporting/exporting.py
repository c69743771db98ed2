"""One seed of a run in the formats of other programs, and what the files say of it."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template

import fconv_jax
from experiments.reporting import tables
from experiments.rules import InputError
from experiments.runs.best import Evaluator
from experiments.runs.folder import replaced
from experiments.settings import DATASETS, MODELS, PREPROCESSING, SETTINGS
from fconv_jax import pretrained

_CARD = Path(__file__).parent / "templates" / "weights.md"


def export(
    run_dir: str | Path, form: str, output: Path, seed: int | None = None, size: int | None = None
) -> int | None:
    """Writes the network of one seed; returns the seed, None for a network of `fconv_jax.from_pretrained`.

    `run_dir`: as it was typed, since "./NAME" is a folder where NAME is a packaged network; `form`: one of
    `settings.EXPORT_FORMATS`; `seed`: None for the one with the best validation accuracy (of several, the first);
    `size`: height and width of the images, where the network takes any.

    Raises:
      InputError: no such run, format's package or seed, or what the format cannot hold.
    """
    name, run_dir = str(run_dir), Path(run_dir)
    if not (run_dir / "best").exists() and (
        name in pretrained.SHIPPED or (run_dir / pretrained.SUMS).exists() or not ("/" in name or run_dir.exists())
    ):
        if seed is not None:
            raise InputError(f"{name} is one network: --seed is for runs")
        try:
            model, config = fconv_jax.from_pretrained(name), pretrained.read_config(name)
        except ValueError as error:
            raise InputError(str(error)) from error
        _write(form, model, output, config, None, size)
        return None
    evaluator = Evaluator(run_dir)
    results = evaluator.results
    if results is None and not evaluator.elsewhere:
        raise InputError(f"{run_dir} is not finished: --resume finishes it")
    seeds = evaluator.config.seeds
    if seed is not None and seed not in seeds:
        raise InputError(f"{run_dir} has the seeds {', '.join(map(str, seeds))}, not {seed}")
    row = _best(results) if seed is None else seeds.index(seed)
    config = _config(evaluator, results, row, asked=seed is not None)
    _write(form, evaluator.model(row), output, config, _card(config, results), size)
    return seeds[row]


def _write(form, model, output, config, card, size):
    height, _, channels = model.input_shape
    if form == "safetensors" or height is not None:
        if size is not None and size != height:
            raise InputError(
                f"--size (={size}) is for onnx and stablehlo files of networks that take images of any size"
            )
    elif size is None:
        raise InputError("the network takes images of any size, and the file is for one: give --size")
    try:
        _WRITERS[form](model, output, config, card, (height or size, height or size, channels))
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error


def _best(results):
    """The row of the best validation accuracy; a converted network has one row and no accuracies."""
    if results is None:
        return 0
    good = tables.good(results)
    return max(range(len(good)), key=lambda row: (good[row], results["validation_accuracy"][row], -row))


def _config(evaluator, results, row, asked):
    """What `fconv_jax.save_pretrained` keeps of a network, for all formats."""
    of_run, name = evaluator.config, evaluator.run_dir.resolve().name
    source = {"run": name, "best_digest": evaluator.digest, "trained": "elsewhere"}
    spec = MODELS[of_run.model]
    options = {**spec.options, "num_classes": evaluator.network.num_classes}
    contents = {"model": spec.builder, "options": options}
    if results is None:
        return contents | {"source": source}
    source |= {"trained": results["command"], "chosen": "asked for" if asked else "the best validation accuracy"}
    source |= {name: getattr(of_run, name) for name in ("dataset", "setting", "data_seed", "precision")}
    source |= {"seed": of_run.seeds[row], "seeds": list(of_run.seeds)}
    source |= {name: results[name][row] for name in ("best_epoch", "validation_accuracy", "test_accuracy")}
    classes = [str(label) for label in range(evaluator.network.num_classes)]
    return contents | {"classes": classes, "preprocessing": PREPROCESSING[of_run.dataset], "source": source}


def _card(config, results):
    marks = {"model": config["model"], "digest": config["source"]["best_digest"], **config["source"]}
    marks |= {"input": "not known", "about": "trained elsewhere", "accuracy": "not known", "seed": "not known"}
    if results is not None:
        source = config["source"]
        setting, size = SETTINGS[source["setting"]], DATASETS[source["dataset"]].num_train
        rotated = DATASETS[source["dataset"]].is_rotated  # whatever the setting
        trained, tested = (
            "rotated" if rotated or x else "upright" for x in (setting.train_rotated, setting.test_rotated)
        )
        which = "the seeds that did not fail" if results.get("failed_seeds") else "all seeds"
        mean, std = (_number(results[name]) for name in ("mean", "std"))
        marks |= {
            "input": config["preprocessing"]["text"],
            "about": f"{source['dataset']} ({size:,} images to train on), setting {setting.number}: trained on "
            f"{trained} images, validated and tested on {tested} ones; arithmetic in {source['precision']}",
            "seed": f"{source['seed']} of {', '.join(map(str, source['seeds']))}: {source['chosen']}; epoch "
            f"{source['best_epoch']}, its best in validation",
            "accuracy": f"test {source['test_accuracy']:.4f}, validation {source['validation_accuracy']:.4f} (test, "
            f"mean and standard deviation of {which}: {mean} ± {std})",
        }
    return Template(_CARD.read_text(encoding="utf-8")).substitute(marks)


def _number(value):
    return "-" if value is None else f"{value:.4f}"


def _safetensors(model, output, config, card, _):
    if card is None:
        raise InputError("this network is a folder of safetensors already: copy it")
    if config["model"] not in fconv_jax.models.MODELS:
        raise InputError(f"{config['model']} is no network of fconv_jax.models: --format onnx or stablehlo")
    fconv_jax.save_pretrained(model, output, config=config, card=card)


def metadata(config: Mapping) -> dict[str, str]:
    """What an ONNX file says of its network: the entries of a config, all but texts as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in config.items()}


def _onnx(model, output, config, _, input_shape):
    with _new(output) as path:
        fconv_jax.export.to_onnx(model, path, input_shape, metadata=metadata(config))


def _stablehlo(model, output, _config, _card, input_shape):
    data = fconv_jax.export.to_stablehlo(model, input_shape)
    with _new(output) as path:
        path.write_bytes(data)


@contextlib.contextmanager
def _new(output):
    """A path to write to; the finished file becomes `output`, which must not exist yet."""
    if output.exists():
        raise InputError(f"{output} exists: remove it, or name another")
    if not output.parent.is_dir():
        raise InputError(f"{output} cannot be written: {output.parent} is not a folder")
    try:
        with replaced(output) as path:
            yield path
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}") from error


# Each format of `settings.EXPORT_FORMATS`: called with (model in evaluation mode, output, config, card, input shape).
_WRITERS = {"safetensors": _safetensors, "onnx": _onnx, "stablehlo": _stablehlo}
