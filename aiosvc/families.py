"""
What collectors hand over at a scrape, and its text.

Rule: knows no registry, and nothing of prometheus_client but its public `Metric`. Any collector has
`collect()`, which makes a `Metric` of samples; that costs more than writing them does, so a
collector that keeps plain numbers may have `series()` too, see `SeriesCollector`:

    QUEUE = Layout("queue_depth", "Items ready.", "gauge", ("queue_name",), (("", ()),))
    LAG = Layout("lag_seconds", "Lag.", "histogram", (), buckets((0.1, 1.0)))

    class Queues:
        def series(self):
            yield QUEUE, [Row((name,), (depth,)) for name, depth in self.depths.items()]
            yield LAG, [Row((), (3, 4, 4, 1.25))]  # cumulative: le 0.1, 1.0, +Inf; count, sum
            yield from self.families_of_others     # a Metric may stand among them

`series()` gives what `collect()` would, in the same order, and b"" where it may be paused. A layout
is made once and kept: the text of a row is found by its layout and label values, and written anew
only where a number has changed. Rows may come from an iterator, which is paused between them. Where
not all series of a family have the same parts, layouts of its name follow each other.

Theory of operation. A `CollectorText` keeps what scrapes wrote: for a sample of a `Metric` the start
of its line, for a row its lines and its numbers, packed, so that comparing them is one comparison of
bytes. It is kept in place, since to copy and drop it would hold the loop, and make objects that
Python's collector has to look at. A scrape that did not use all of it has the next one keep only
what that one uses; and there are no more than `LIMIT` line starts.

Samples are let go of as they are written: to free 100,000 of them at once takes many milliseconds.
"""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from prometheus_client import Metric
from prometheus_client.core import Exemplar, Sample

from aiosvc import seriestext
from aiosvc.formats import Escaping, Format
from aiosvc.seriestext import GROUPED, Lines, Part

K = TypeVar("K")
V = TypeVar("V")

__all__ = ["CollectorText", "Handed", "Layout", "Row", "SeriesCollector", "buckets"]

#: Line starts that are kept of one collector in one escaping; some 200 bytes each.
LIMIT: Final = 200_000

#: Samples between two looks at the clock.
STEP: Final = 64

#: Lines of rows between two looks at the clock.
LINES: Final = 256


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """
    What does not change about a family.

    *name*, *documentation*, *type* and *unit* are as in prometheus_client's `Metric`: a counter's
    name has no `_total`. Each series has one line for each of *parts*: what follows the family's
    name there, and labels beside the series' own, which must be none of *labelnames*.
    """

    name: str
    documentation: str
    type: str
    labelnames: tuple[str, ...]
    parts: tuple[Part, ...]
    unit: str = ""

    def __post_init__(self) -> None:
        for suffix, extra in self.parts:
            if suffix in GROUPED:
                raise ValueError(f"{self.name}: part {suffix!r} needs a Metric, from collect()")
            clash = {name for name, _ in extra}.intersection(self.labelnames)
            if clash:
                raise ValueError(f"{self.name}: {', '.join(clash)} is a label and one of a part's")


class Row(NamedTuple):
    """
    One series: a value for each label name, a number for each part, and exemplars by part.

    *numbers* are ints or floats, a histogram's buckets cumulative.
    """

    labels: tuple[str, ...]
    numbers: Sequence[float]
    exemplars: Mapping[int, Exemplar] | None = None


Handed: TypeAlias = Metric | tuple[Layout, Iterable[Row]] | bytes


@runtime_checkable
class SeriesCollector(Protocol):
    """A collector that can hand over its series without making samples of them."""

    def series(self) -> Iterable[Handed]:
        """
        Give every family with what is known now, the same and in the same order as collect().

        b"" where it may be paused, at least each millisecond.
        """


def buckets(bounds: Iterable[float]) -> tuple[Part, ...]:
    """Return the parts of a histogram: upper *bounds* without +Inf, +Inf, count and sum."""
    les = [*map(seriestext.number, bounds), "+Inf"]
    return (*(("_bucket", (("le", le),)) for le in les), ("_count", ()), ("_sum", ()))


class CollectorText:
    """The text of what one collector hands over, in one escaping of names."""

    def __init__(self, escaping: Escaping) -> None:
        self._escaping = escaping
        self._starts: _Kept[object, bytes] = _Kept()
        self._laid_out: dict[Layout, _LayoutText] = {}

    def pieces(
        self, handed: Iterable[Handed], form: Format, names: Collection[str] | None = None
    ) -> Iterator[bytes]:
        """
        Give the text of families; b"" where it may be paused. Raises what *handed* raises.

        *form* has the escaping of this object. With *names* only samples of these names.
        """
        known = self._starts.known
        starts = self._starts.begin() if names is None else {}
        used = 0
        laid_out: dict[Layout, _LayoutText] = {}
        begun = None
        for each in handed:
            if isinstance(each, bytes):
                yield b""
            elif isinstance(each, tuple):
                layout, rows = each
                text = self._laid_out.get(layout) or _LayoutText(layout, self._escaping)
                laid_out[layout] = text
                for piece in text.pieces(rows, form, names, headed=layout.name == begun):
                    begun = layout.name
                    yield piece
            else:
                begun = None
                head = _Head(each.name, each.documentation, each.type, each.unit)
                samples = each.samples[::-1]
                del each  # so that its samples can go one by one
                used += len(samples)
                yield from self._sampled(head, samples, form, names, (known, starts))
        if names is None:
            self._starts.end(starts, used)
            self._laid_out = laid_out

    def _sampled(
        self,
        head: "_Head",
        samples: list[Sample],
        form: Format,
        names: Collection[str] | None,
        starts: tuple[dict[object, bytes], dict[object, bytes]],
    ) -> Iterator[bytes]:
        """Give one family's text and empty *samples*, of which the last is the first to write."""
        unit = head.unit
        if names is not None:
            samples = [sample for sample in samples if sample.name in names]
            unit = ""  # as in prometheus_client's restricted families
            if not samples:
                return
        yield seriestext.header(head.name, head.documentation, head.type, unit, form)
        groups: dict[str, list[bytes]] = {}
        grouped = {} if form.openmetrics else {head.name + suffix: suffix for suffix in GROUPED}
        while samples:
            lines = []
            for _ in range(min(STEP, len(samples))):
                sample = samples.pop()
                if sample.native_histogram is not None:
                    continue  # none of our formats can say it
                line = self._start(sample, starts) + _rest(sample, head, form)
                if sample.name in grouped:
                    groups.setdefault(grouped[sample.name], []).append(line)
                else:
                    lines.append(line)
            yield b"".join(lines)
        for suffix, lines in sorted(groups.items()):
            yield seriestext.group_header(head.name, head.documentation, suffix, form)
            yield b"".join(lines)

    def _start(
        self, sample: Sample, starts: tuple[dict[object, bytes], dict[object, bytes]]
    ) -> bytes:
        labels = sample.labels
        key = (sample.name, *labels.items()) if labels else sample.name
        known, into = starts
        start = known.get(key) or into.get(key)
        if start is None:
            text = seriestext.sample_start(sample.name, labels or {}, self._escaping)
            start = seriestext.encode(text)
        elif into is known:
            return start
        if len(into) < LIMIT:
            into[key] = start
        return start


class _Kept(Generic[K, V]):
    """What is kept by key from scrape to scrape, as long as scrapes use it."""

    __slots__ = ("_is_stale", "known")

    def __init__(self) -> None:
        self.known: dict[K, V] = {}
        self._is_stale = False

    def begin(self) -> dict[K, V]:
        """Return where a scrape is to keep what it uses: in what is known, or in a dict anew."""
        return {} if self._is_stale else self.known

    def end(self, into: dict[K, V], used: int) -> None:
        """Take note that a scrape has kept *used* entries in *into*."""
        self._is_stale = into is self.known and used != len(into)
        self.known = into


class _Head(NamedTuple):
    """A family without its samples."""

    name: str
    documentation: str
    type: str
    unit: str


class _LayoutText:
    """The text of one layout's rows."""

    def __init__(self, layout: Layout, escaping: Escaping) -> None:
        self._layout = layout
        self._escaping = escaping
        self._lines = Lines(layout.name, layout.labelnames, layout.parts, escaping)
        self._step = max(1, LINES // max(1, len(layout.parts)))
        self._pack = Struct(f"{len(layout.parts)}d").pack
        self._rows: _Kept[tuple[str, ...], tuple[bytes, bytes]] = _Kept()

    def pieces(
        self,
        rows: Iterable[Row],
        form: Format,
        names: Collection[str] | None,
        *,
        headed: bool,
    ) -> Iterator[bytes]:
        """
        Give the text of *rows* after the family's header; with *names* only if there is any.

        *headed* says that the header has been given already.
        """
        layout = self._layout
        # As in prometheus_client, a restricted family has lost its unit.
        unit = layout.unit if names is None else ""
        head = b""
        if not headed:
            head = seriestext.header(layout.name, layout.documentation, layout.type, unit, form)
        if names is None:
            yield head
            into = self._rows.begin()
            used = yield from self._blocks(rows, form, into)
            self._rows.end(into, used)
            return
        chosen = {layout.name + suffix for suffix, _ in layout.parts}.intersection(names)
        if not chosen:
            return
        starts = seriestext.line_starts(chosen, self._escaping)
        for block in self._blocks(rows, form, {}):
            yield head + seriestext.chosen_lines(block, starts)
            head = b""

    def _blocks(
        self, rows: Iterable[Row], form: Format, into: dict[tuple[str, ...], tuple[bytes, bytes]]
    ) -> Generator[bytes, None, int]:
        """Give the lines of *rows*, keep them in *into*, and return how many rows there are."""
        known, pack, step = self._rows.known, self._pack, self._step
        used = 0
        texts = []
        for labels, numbers, exemplars in rows:
            packed = pack(*numbers)
            row = known.get(labels)
            if row is None or row[0] != packed:
                into[labels] = row = packed, self._written(labels, numbers, row)
            elif into is not known:
                into[labels] = row
            text = row[1]
            if exemplars and form.openmetrics:
                text = seriestext.with_exemplars(text, exemplars, form.escaping)
            texts.append(text)
            if len(texts) == step:
                yield b"".join(texts)
                used += step
                texts.clear()
        if texts:
            yield b"".join(texts)
        return used + len(texts)

    def _written(
        self, labels: tuple[str, ...], numbers: Sequence[float], known: tuple[bytes, bytes] | None
    ) -> bytes:
        if known is not None and len(numbers) == 1:
            return seriestext.rewritten(known[1], numbers[0])
        if len(labels) != len(self._layout.labelnames):
            raise ValueError(
                f"{self._layout.name}: label values {labels} given; expected one for each of "
                f"{self._layout.labelnames}"
            )
        # A member of an enumeration of strings is shown otherwise than it is written.
        return self._lines.write([str.__str__(label) for label in labels], numbers)


def _rest(sample: Sample, family: _Head, form: Format) -> bytes:
    """Return what follows the start of a sample's line."""
    text = seriestext.number(sample.value)
    if form.openmetrics:
        if sample.timestamp is not None:
            text += f" {sample.timestamp}"
        if sample.exemplar:
            if not _may_have_exemplar(sample.name, family):
                raise ValueError(
                    f"{sample.name}: an exemplar on a {family.type}; expected it on a bucket or "
                    "on a counter's _total"
                )
            text += seriestext.exemplar_text(sample.exemplar, form.escaping)
    elif sample.timestamp is not None:
        text += f" {int(float(sample.timestamp) * 1000):d}"
    return seriestext.encode(text + "\n")


def _may_have_exemplar(name: str, family: _Head) -> bool:
    if family.type == "counter":
        return name.endswith("_total")
    if family.type == "histogram":
        return name.endswith("_bucket") or name == family.name
    return family.type == "gaugehistogram" and name.endswith("_bucket")
