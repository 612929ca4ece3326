"""
prometheus_client's own metrics and registries, read where they keep what they know.

Rule: the only module of the exposition that knows names which prometheus_client calls private.
Whatever surprises it here raises, and the caller asks the metric's `collect()` instead. Rule: takes
no lock of prometheus_client's, so a scrape can't deadlock with an observer that it interrupted.

Theory of operation. A `ClientFamily` keeps the text of one metric's series in blocks, see there; a
reader for each metric type says where the values are. A histogram's count is the sum of its buckets
as they were read at one moment, so it equals the +Inf bucket always; its sum may be ahead by what
other threads are just observing, since prometheus_client raises it first.

Nothing is emitted before all of a family was read and written. From there on nothing can fail, so a
family comes whole or not at all, though it is never held as a whole.
"""

import itertools
import os
from collections.abc import Collection, Generator, Iterable, Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from prometheus_client import (
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    Summary,
    metrics,
    values,
)
from prometheus_client.registry import CollectorRegistry

from aiosvc import seriestext
from aiosvc.blocks import Block, Members, State
from aiosvc.formats import Escaping, Format
from aiosvc.seriestext import Lines, Part

__all__ = [
    "ClientFamily",
    "collectors_of",
    "is_readable",
    "is_single_process",
    "missing_labels",
    "prefix_of_process",
]

_value = attrgetter("_value")
_created = attrgetter("_created")
_exemplar = attrgetter("_exemplar")
_buckets = attrgetter("_buckets")
_sum = attrgetter("_sum")
_count = attrgetter("_count")
_bounds = attrgetter("_upper_bounds")
_states = attrgetter("_states")
_children = attrgetter("_metrics")
_labelnames = attrgetter("_labelnames")
_labelvalues = attrgetter("_labelvalues")
_registered = attrgetter("_collector_to_names")
_owners = attrgetter("_names_to_collectors")
_name = attrgetter("_name")
_use_created = attrgetter("_use_created")
_samples = attrgetter("_child_samples")
_description = attrgetter("_name", "_documentation", "_type", "_unit")
_process = attrgetter("_prefix", "_pid", "_btime")
_sampler = attrgetter("_child_samples.__func__")
_plain_sampler = _samples(Gauge)

_NOTHING: Final[dict[int, float]] = {}

#: What a subclass must not override if its objects are to be read without being asked.
_METHODS: Final = (
    "collect", "describe", "_child_samples", "_get_metric", "_is_parent", "_multi_samples",
    "_samples",
)  # fmt: skip

#: What an object must not have of its own; a gauge with a function has one of the others.
_REPLACED: Final = frozenset(_METHODS) - {"_child_samples"}


def is_single_process() -> bool:
    """Whether metrics keep their numbers in this process, and not in files for several."""
    return values.ValueClass is values.MutexValue


def is_readable(metric: object) -> bool:
    """Whether *metric* is one of prometheus_client's own, or of a class that only adds to it."""
    kind: Any = type(metric)
    return _reader_of(kind) is not None and _REPLACED.isdisjoint(vars(metric))


def prefix_of_process(collector: object) -> str | None:
    """
    Return what the names of prometheus_client's metrics of this process start with.

    None where *collector* does not give these: it is another, is about another process, or finds
    nothing on this system.
    """
    if not isinstance(collector, ProcessCollector):
        return None
    try:
        prefix, pid, boot_time = _process(collector)
        mine = str(pid()).strip() in ("self", str(os.getpid()))
    except Exception:  # noqa: BLE001 - whatever it is, its own collect() has the last word
        return None
    return prefix if mine and boot_time and isinstance(prefix, str) else None


def missing_labels(metric: object) -> tuple[str, ...]:
    """Return the names of the labels that *metric* must be given before it can be changed."""
    if getattr(metric, "_labelvalues", ()):
        return ()
    return tuple(getattr(metric, "_labelnames", ()))


def collectors_of(registry: Any, names: Collection[str] | None) -> list[Any] | None:
    """
    Return what is registered, in its order; None where *registry* is of a kind of its own.

    With *names* only what was registered under one of these, as `restricted_registry` does.
    """
    if type(registry).collect is not CollectorRegistry.collect:
        return None
    everything = list(_registered(registry))
    if names is None:
        return everything
    owners = _owners(registry)
    chosen = {id(owners[name]) for name in names if name in owners}
    chosen.update(map(id, getattr(registry, "_collectors_without_names", ())))
    return [each for each in everything if id(each) in chosen]


class ClientFamily:
    """The text of one metric, in one escaping of names, kept from scrape to scrape."""

    def __init__(self, metric: Any, escaping: Escaping) -> None:
        self._metric = metric
        self.name, self._documentation, self._type, self._unit = _description(metric)
        kind: Any = type(metric)
        reader = _reader_of(kind)
        if reader is None:
            raise TypeError(f"{metric!r}: expected a metric of prometheus_client's own")
        self.escaping = reader.variant(metric, escaping)
        self._reader = reader(metric, self.escaping)
        self._members = Members()
        self._alone: list[Block] = []
        self._known_heads: dict[Format, tuple[bytes, bytes]] = {}

    def pieces(self, form: Format, names: Collection[str] | None = None) -> Iterator[bytes]:
        """
        Give the family's text, in pieces of about 128 lines; b"" where it may be paused.

        *form* has the family's escaping, or one that is the same for its names. With *names* only
        samples of these names. Raises before the first piece that is not b"", or not at all.
        """
        reader = self._reader
        created = reader.has_created and _use_created(metrics)
        starts = None
        if names is not None:
            created = created and f"{self.name}_created" in names
            written = {self.name + suffix for suffix in reader.suffixes}
            chosen = written.intersection(names)
            if not chosen and not created:
                return
            if chosen != written:
                starts = seriestext.line_starts(chosen, self.escaping)
        head, tail = self._heads(form, restricted=names is not None)
        exemplars = form.escaping if form.openmetrics and reader.has_exemplars else None
        blocks = yield from self._blocks()
        if names is not None and not blocks:
            return
        states = []
        for block in blocks:
            called = (yield from reader.called(block.series)) if reader.may_call else _NOTHING
            state = block.refresh(reader, called=called, created=created, exemplars=exemplars)
            states.append(state)
            if len(blocks) > 1:
                yield b""
        # From here on nothing can fail.
        inline = created and form.openmetrics
        texts = (_text(state, starts, inline=inline, full=form.openmetrics) for state in states)
        dated = (b"".join(state.created_texts) for state in states) if created and tail else ()
        if len(states) <= 1:
            yield b"".join((head, *texts, tail if dated and states else b"", *dated))
            return
        yield head
        yield from texts
        if dated:
            yield tail
            yield from dated

    def _blocks(self) -> Generator[bytes, None, list[Block]]:
        if _labelnames(self._metric):
            return (yield from self._members.update(_children(self._metric), self._reader))
        cells = self._reader.cells(self._metric)
        if not self._alone or self._alone[0].cells != cells:
            self._alone = [Block([self._metric], cells)]
        return self._alone

    def _heads(self, form: Format, *, restricted: bool) -> tuple[bytes, bytes]:
        """Return the lines before the series, and in text those before the created ones."""
        heads = None if restricted else self._known_heads.get(form)
        if heads is None:
            # As in prometheus_client, a restricted family has lost its unit.
            unit = "" if restricted else self._unit
            head = seriestext.header(self.name, self._documentation, self._type, unit, form)
            tail = b""
            if not form.openmetrics:
                tail = seriestext.group_header(self.name, self._documentation, "_created", form)
            heads = head, tail
            if not restricted:
                self._known_heads[form] = heads
        return heads


def _text(state: State, starts: tuple[bytes, ...] | None, *, inline: bool, full: bool) -> bytes:
    """Return a block's lines, *inline* with those that say when series were made."""
    texts = state.full if full else state.texts
    if starts is not None:
        texts = tuple([seriestext.chosen_lines(text, starts) for text in texts])
    if inline:
        pairs = zip(texts, state.created_texts, strict=True)
        return b"".join(itertools.chain.from_iterable(pairs))
    return b"".join(texts)


class _Reader:
    """What the readers of all metric types have in common; see `aiosvc.blocks.Reader`."""

    suffixes: tuple[str, ...] = ("",)
    has_created = False
    has_exemplars = False
    #: Whether a series' value may be a function's.
    may_call = False
    width = 1

    def __init__(self, metric: Any, escaping: Escaping) -> None:
        self._name = _name(metric)
        self._labelnames = _labelnames(metric)
        self._escaping = escaping
        self._lines = Lines(self._name, self._labelnames, self.parts(metric), escaping)
        self._created_line = Lines(self._name, self._labelnames, [("_created", ())], escaping)

    @classmethod
    def variant(cls, metric: Any, escaping: Escaping) -> Escaping:
        """Return an escaping that gives the same text, the same one for as many as can be."""
        plain = seriestext.is_plain(_name(metric), _labelnames(metric))
        return "underscores" if plain and escaping != "dots" else escaping

    def parts(self, _metric: Any) -> list[Part]:
        """Return what a series' lines are."""
        return [(suffix, ()) for suffix in self.suffixes]

    def cells(self, series: Any) -> list[Any]:
        """Return the objects that hold a series' values."""
        cells = self.holders(series)
        if any(type(cell) is not values.MutexValue for cell in cells):
            raise TypeError(f"{series!r} keeps its values in another way")
        return cells

    def holders(self, series: Any) -> list[Any]:
        """Return the same, unchecked."""
        return [_value(series)]

    def read(self, cells: list[Any]) -> tuple[Any, ...]:
        """Return the cells' values."""
        return tuple(map(_value, cells))

    def called(self, _series: list[Any]) -> Generator[bytes, None, dict[int, float]]:
        """Return, by place, the values that functions give; yields b"" where it may be paused."""
        yield from ()
        return {}

    def created(self, series: list[Any]) -> tuple[float, ...]:
        """Return when each series was made."""
        return tuple(map(_created, series))

    def exemplars(self, cells: list[Any]) -> tuple[Any, ...]:
        """Return the cells' exemplars."""
        return tuple(map(_exemplar, cells))

    def write(self, series: Any, numbers: tuple[Any, ...], known: bytes) -> bytes:
        """Return a series' lines."""
        if known and len(numbers) == 1:
            return seriestext.rewritten(known, numbers[0])
        return self._lines.write(_labelvalues(series), self.numbers(numbers))

    def write_created(self, series: Any, created: float) -> bytes:
        """Return a series' line that says when it was made."""
        return self._created_line.write(_labelvalues(series), (created,))

    def numbers(self, numbers: tuple[Any, ...]) -> Iterable[float]:
        """Return the numbers in a series' lines, made of its values."""
        return numbers


class _CounterReader(_Reader):
    suffixes = ("_total",)
    has_created = True
    has_exemplars = True


class _GaugeReader(_Reader):
    may_call = True

    def called(self, series: list[Any]) -> Generator[bytes, None, dict[int, float]]:
        samplers = list(map(_sampler, series))
        called: dict[int, float] = {}
        if samplers.count(_plain_sampler) == len(samplers):
            return called
        for place, (gauge, sampler) in enumerate(zip(series, samplers, strict=True)):
            if sampler is not _plain_sampler:
                (sample,) = _samples(gauge)()
                if sample[:2] != ("", {}) or any(each is not None for each in sample[3:]):
                    raise TypeError(f"{gauge!r} has samples of its own")
                called[place] = sample.value
                yield b""
        return called


class _SummaryReader(_Reader):
    suffixes = ("_count", "_sum")
    has_created = True
    width = 2

    def holders(self, series: Any) -> list[Any]:
        return [_count(series), _sum(series)]


class _HistogramReader(_Reader):
    has_created = True
    has_exemplars = True

    def parts(self, metric: Any) -> list[Part]:
        bounds = _bounds(metric)
        self.width = len(bounds) + 1
        # As prometheus_client: no sum where observations may be negative.
        self.suffixes = ("_bucket", "_count", "_sum") if bounds[0] >= 0 else ("_bucket", "_count")
        buckets: list[Part] = [("_bucket", (("le", seriestext.number(b)),)) for b in bounds]
        return buckets + [(suffix, ()) for suffix in self.suffixes[1:]]

    def holders(self, series: Any) -> list[Any]:
        return [*_buckets(series), _sum(series)]

    def numbers(self, numbers: tuple[Any, ...]) -> Iterable[float]:
        below = list(itertools.accumulate(numbers[:-1]))
        below.append(below[-1])
        if "_sum" in self.suffixes:
            below.append(numbers[-1])
        return below


class _InfoReader(_Reader):
    suffixes = ("_info",)

    @classmethod
    def variant(cls, _metric: Any, escaping: Escaping) -> Escaping:
        return escaping  # its label names are not known beforehand

    def cells(self, series: Any) -> list[Any]:
        return [series]

    def write(self, series: Any, numbers: tuple[Any, ...], _known: bytes) -> bytes:
        labels = {**dict(zip(self._labelnames, _labelvalues(series), strict=True)), **numbers[0]}
        start = seriestext.sample_start(f"{self._name}_info", labels, self._escaping)
        return seriestext.encode(f"{start}{seriestext.number(1.0)}\n")


class _EnumReader(_Reader):
    @classmethod
    def variant(cls, metric: Any, escaping: Escaping) -> Escaping:
        # The metric's name is a label name too, and a colon is no more legal there.
        plain = seriestext.is_plain(_name(metric), (*_labelnames(metric), _name(metric)))
        return "underscores" if plain and escaping != "dots" else escaping

    def parts(self, metric: Any) -> list[Part]:
        self._places = range(len(_states(metric)))
        return [("", ((_name(metric), state),)) for state in _states(metric)]

    def cells(self, series: Any) -> list[Any]:
        return [series]

    def write(self, series: Any, numbers: tuple[Any, ...], _known: bytes) -> bytes:
        on = numbers[0]
        ones = [1.0 if place == on else 0.0 for place in self._places]
        return self._lines.write(_labelvalues(series), ones)


_READERS: Final[dict[type, type[_Reader]]] = {
    Counter: _CounterReader,
    Gauge: _GaugeReader,
    Summary: _SummaryReader,
    Histogram: _HistogramReader,
    Info: _InfoReader,
    Enum: _EnumReader,
}


@lru_cache(maxsize=256)
def _reader_of(kind: Any) -> type[_Reader] | None:
    for known, reader in _READERS.items():
        if issubclass(kind, known) and all(
            getattr(kind, name) is getattr(known, name) for name in _METHODS
        ):
            return reader
    return None
