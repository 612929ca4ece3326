r"""
How names, labels, numbers and whole lines of a series are written in the exposition formats.

Rule: knows no registry and no metric; names and values in, text out. Rule: byte for byte what
prometheus_client writes, except where the specification says otherwise:

* A name is judged and escaped as a whole. prometheus_client takes "name\n" for legal and writes the
  line feed out; in OpenMetrics it escapes sample names as if they were label names, so `job:x`
  becomes `job_x` under a TYPE that says `job:x`, and with `values` also the legal `x` becomes `U__x`
  (prometheus/client_python#1177).
* `# UNIT` is written only where the name, as written, ends in the unit; parsers refuse it elsewhere.
* An exemplar's label name that is not legal is escaped like any other.
* A lone surrogate, which UTF-8 can't say, becomes U+FFFD instead of losing the scrape. So does NUL in
  an exemplar, at which Prometheus (2.42) refuses everything; in a label value it does not mind.

Sources: prometheus.io, "Text-based format" and "UTF-8 escaping schemes"; OpenMetrics 1.0.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from prometheus_client import utils
from prometheus_client.core import Exemplar

from aiosvc.formats import Escaping, Format
from aiosvc.naming import SURROGATE, without_surrogates

__all__ = [
    "GROUPED",
    "Lines",
    "Part",
    "chosen_lines",
    "encode",
    "exemplar_text",
    "group_header",
    "header",
    "is_plain",
    "line_starts",
    "number",
    "rewritten",
    "sample_start",
    "with_exemplars",
]

#: Samples with these suffixes stand in gauges of their own in the text formats.
GROUPED: Final = ("_created", "_gcount", "_gsum")

#: A suffix of the family's name, and labels beside the series' own.
Part = tuple[str, tuple[tuple[str, str], ...]]

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_EXEMPLAR_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_METRIC_STRANGER = re.compile(r"[^a-zA-Z0-9_:]|^[0-9]")
_LABEL_STRANGER = re.compile(r"[^a-zA-Z0-9_]|^[0-9]")

#: Metric type in the text formats, and what it adds to the family's name there.
_TEXT_TYPES = {
    "counter": ("counter", "_total"),
    "info": ("gauge", "_info"),
    "stateset": ("gauge", ""),
    "gaugehistogram": ("histogram", ""),
    "unknown": ("untyped", ""),
}

_go_string: Callable[[float], str] = utils.floatToGoString

#: Counters and buckets mostly hold small whole numbers. Zero is left out: -0.0 would find it.
_WHOLE: Final = {float(n): f"{n}.0" for n in range(1, 2048)}
#: Up to here _go_string is repr.
_MILLION: Final = 1e6


def encode(text: str) -> bytes:
    """Return *text* in UTF-8, U+FFFD for each lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return without_surrogates(text).encode()


def number(value: float) -> str:
    """Return a sample's value as prometheus_client writes it."""
    if type(value) is not float:
        value = float(value)
    whole = _WHOLE.get(value)
    if whole is not None:
        return whole
    if -_MILLION < value < _MILLION:
        return repr(value)
    return _go_string(value)


def is_plain(name: str, labelnames: Iterable[str]) -> bool:
    """Whether all escapings but `dots` write these names as they are."""
    return _METRIC_NAME.fullmatch(name) is not None and all(map(_LABEL_NAME.fullmatch, labelnames))


def sample_start(name: str, labels: Mapping[str, str], escaping: Escaping) -> str:
    """Return a sample's line up to its value."""
    before, after = _frame(name, labelled=bool(labels), escaping=escaping)
    if not labels:
        return before + after
    pairs = sorted(labels.items())
    return before + ",".join([f'{_label(k, escaping)}="{_quoted(v)}"' for k, v in pairs]) + after


def line_starts(names: Iterable[str], escaping: Escaping) -> tuple[bytes, ...]:
    """Return what lines of samples of these names start with, and no others of their family."""
    starts = []
    for name in names:
        before, _ = _frame(name, labelled=True, escaping=escaping)
        alone, after = _frame(name, labelled=False, escaping=escaping)
        starts += [encode(before), encode(alone + after)]
    return tuple(starts)


def header(name: str, documentation: str, kind: str, unit: str, form: Format) -> bytes:
    """Return the HELP, TYPE and UNIT lines of a family of type *kind*."""
    if not form.openmetrics:
        kind, suffix = _TEXT_TYPES.get(kind, (kind, ""))
        return _header(name + suffix, documentation, kind, form)
    text = _header(name, documentation, kind, form)
    written = _metric(name, form.escaping)
    if unit and "\n" not in unit and written.endswith((f"_{unit}", f'_{unit}"')):
        text += encode(f"# UNIT {written} {unit}\n")
    return text


def group_header(name: str, documentation: str, suffix: str, form: Format) -> bytes:
    """Return the lines before the samples with one of the suffixes of `GROUPED`."""
    return _header(name + suffix, documentation, "gauge", form)


def exemplar_text(exemplar: Exemplar, escaping: Escaping) -> str:
    """Return what follows a sample's value."""
    labels = ",".join(
        [
            f'{k if _EXEMPLAR_NAME.fullmatch(k) else _label(k, escaping)}="{_quoted(v)}"'
            for k, v in sorted(exemplar.labels.items())
        ]
    )
    labels = labels.replace("\x00", "\ufffd")
    text = f" # {{{labels}}} {_go_string(exemplar.value)}"
    return text if exemplar.timestamp is None else f"{text} {exemplar.timestamp}"


def rewritten(line: bytes, value: float) -> bytes:
    """Return *line*, which holds neither timestamp nor exemplar, with another value."""
    return line[: line.rindex(b" ") + 1] + number(value).encode() + b"\n"


def with_exemplars(text: bytes, exemplars: Mapping[int, Exemplar], escaping: Escaping) -> bytes:
    """Return the lines of *text* with an exemplar at some of them, by place."""
    lines = text.split(b"\n")
    for place, exemplar in exemplars.items():
        lines[place] += encode(exemplar_text(exemplar, escaping))
    return b"\n".join(lines)


def chosen_lines(text: bytes, starts: tuple[bytes, ...]) -> bytes:
    """Return those lines of *text* that start in one of these ways."""
    lines = text.split(b"\n")
    return b"".join([line + b"\n" for line in lines if line.startswith(starts)])


class Lines:
    """
    The lines of each series of a family: all but label values and numbers, put together once.

    A series has one line for each of *parts*, in their order. Labels of a part are none of
    *labelnames*.
    """

    __slots__ = ("_order", "_template")

    def __init__(
        self, name: str, labelnames: Sequence[str], parts: Iterable[Part], escaping: Escaping
    ) -> None:
        place = {labelname: index for index, labelname in enumerate(labelnames)}
        self._order = tuple(place[labelname] for labelname in sorted(place))
        lines = []
        for suffix, extra in parts:
            before, after = _frame(name + suffix, labelled=bool(place or extra), escaping=escaping)
            labels = dict.fromkeys(place, "%s")
            labels.update((k, _percent(_quoted(v))) for k, v in extra)
            pairs = [f'{_percent(_label(k, escaping))}="{v}"' for k, v in sorted(labels.items())]
            lines.append(f"{_percent(before)}{','.join(pairs)}{_percent(after)}%s\n")
        self._template = "".join(lines)

    def write(self, labelvalues: Sequence[str], numbers: Iterable[float]) -> bytes:
        """Return the lines of one series: a label value per name, a number per part."""
        if not self._order:
            return encode(self._template % tuple(map(number, numbers)))
        values = [labelvalues[index] for index in self._order]
        joined = "".join(values)
        if "\\" in joined or '"' in joined or "\n" in joined:
            values = list(map(_quoted, values))
        arguments: list[str] = []
        for each in numbers:
            arguments += values
            arguments.append(number(each))
        return encode(self._template % tuple(arguments))


def _header(name: str, documentation: str, kind: str, form: Format) -> bytes:
    written = _metric(name, form.escaping)
    text = documentation.replace("\\", "\\\\").replace("\n", "\\n")
    if form.openmetrics:
        text = text.replace('"', '\\"')
    return encode(f"# HELP {written} {text}\n# TYPE {written} {kind}\n")


@lru_cache(maxsize=4096)
def _frame(name: str, *, labelled: bool, escaping: Escaping) -> tuple[str, str]:
    """Return what stands before and after the labels of a sample."""
    written = _metric(name, escaping)
    if escaping == "allow-utf-8" and not _METRIC_NAME.fullmatch(name):
        return (f"{{{written},", "} ") if labelled else (f"{{{written}", "} ")
    return (written + "{", "} ") if labelled else (written, " ")


@lru_cache(maxsize=4096)
def _metric(name: str, escaping: Escaping) -> str:
    return _escaped(name, escaping, _METRIC_NAME, _METRIC_STRANGER)


@lru_cache(maxsize=4096)
def _label(name: str, escaping: Escaping) -> str:
    return _escaped(name, escaping, _LABEL_NAME, _LABEL_STRANGER)


def _escaped(
    name: str, escaping: Escaping, legal: re.Pattern[str], stranger: re.Pattern[str]
) -> str:
    if not name or (escaping != "dots" and legal.fullmatch(name)):
        return name
    if escaping == "allow-utf-8":
        return f'"{_quoted(name)}"'
    if escaping == "underscores":
        return stranger.sub("_", name)
    replace = _dotted if escaping == "dots" else _valued
    written = "".join(
        [
            replace(character) if character == "_" or stranger.match(name, index) else character
            for index, character in enumerate(name)
        ]
    )
    return written if escaping == "dots" else "U__" + written


def _dotted(character: str) -> str:
    return "_dot_" if character == "." else "__"


def _valued(character: str) -> str:
    if character == "_":
        return "__"
    return "_FFFD_" if SURROGATE.match(character) else f"_{ord(character):x}_"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _percent(text: str) -> str:
    return text.replace("%", "%%")
