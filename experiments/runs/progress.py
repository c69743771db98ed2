"""What a training shows while it runs: a bar with an ETA, or lines where there is no terminal."""

import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.runs.plan import Place
from experiments.settings import DATASETS, RunConfig

_LINE_EVERY = 30.0  # seconds between lines where there is no terminal for a bar


class Bar:
    """A progress bar with loss, validation accuracy and ETA; lines now and then where there is no terminal."""

    def __init__(self, console: Console, config: RunConfig, place: Place | None = None):
        self.console, self.config, self.place = console, config, place
        self.num_validation = DATASETS[config.dataset].num_images("validation", config.setting)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal, refresh_per_second=4)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.progress.stop()

    def start(self, position, num_steps):
        """Shows the bar from `position` on."""
        total = self.config.epochs * num_steps
        self.task = self.progress.add_task(self.config.model, total=total, status="")
        self.progress.start()
        self.progress.update(self.task, completed=position.epoch * num_steps + position.step)
        self.started, self.done_at_start, self.said = time.monotonic(), position.epoch * num_steps + position.step, -1e9
        self.compiled_at_start = position.compile_seconds

    def report(self, position, num_steps):
        """Called after each step and each epoch."""
        done = position.epoch * num_steps + position.step
        now, total = time.monotonic(), self.config.epochs * num_steps
        # Programs are compiled once, at the start: that time says nothing about later steps.
        spent = max(now - self.started - (position.compile_seconds - self.compiled_at_start), 0.0)
        step = spent / max(done - self.done_at_start, 1)
        status = self._status(position) + self._sweep(done, total, step)
        self.progress.update(self.task, completed=done, status=status)
        if not self.console.is_terminal and position.step == 0 and (now - self.said > _LINE_EVERY or done == total):
            left = duration(step * (total - done))
            self.console.print(f"{status}, {duration(now - self.started)} gone, about {left} to go")
            self.said = now

    def _sweep(self, done, total, step):
        """How long the whole sweep still takes."""
        if self.place is None or done == self.done_at_start:
            return ""
        left = self.place.seconds_left(step * (total - done), step * total)
        return f", training {self.place.number}/{self.place.count}, sweep: about {duration(left)} to go"

    def _status(self, position):
        text = f"epoch {min(position.epoch + (position.step > 0), self.config.epochs)}/{self.config.epochs}"
        if position.train_loss:
            loss = sum(position.train_loss[-1]) / len(position.train_loss[-1])
            counts = position.validation_correct[str(self.config.setting)][-1]
            text += f", loss {loss:.4f}, validation {sum(counts) / len(counts) / self.num_validation:.4f}"
        return text


def counted(console: Console, what: str, items: Sequence) -> Iterator:
    """Passes items on and shows how many are done: a bar, or lines now and then where there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    columns += (TextColumn("ETA"), TimeRemainingColumn())
    started = said = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        for done, item in enumerate(bar.track(items, description=what), start=1):
            yield item
            now = time.monotonic()
            if not console.is_terminal and now - said > _LINE_EVERY:
                left = duration((now - started) / done * (len(items) - done))
                console.print(f"{done} of {len(items)} {what}, about {left} to go")
                said = now


def duration(seconds: float) -> str:
    """Seconds in words."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours = seconds // 60, seconds // 3600
    return f"{minutes} min {seconds % 60} s" if not hours else f"{hours} h {minutes % 60} min"
