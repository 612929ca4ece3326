"""
Whom the rules are about and how long their windows are: the parts that every expression repeats.

Rule: every series in an expression is selected through here, recorded ones too, so that no rule looks
at a target that was not asked for, and files for different services can be loaded side by side.
"""

from collections.abc import Mapping

from aiosvc.catalogue import MetricSpec
from aiosvc.rules.options import RulesOptions

__all__ = ["Scope", "written"]

#: Milliseconds by unit, longest first.
UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def written(seconds: float) -> str:
    """Return a time as PromQL writes it, in the longest unit that it is a whole number of."""
    milliseconds = max(1, round(seconds * 1000))
    unit = next(unit for unit, length in UNITS.items() if milliseconds % length == 0)
    return f"{milliseconds // UNITS[unit]}{unit}"


class Scope:
    """The selector, the labels of a service and the scale of *options*, as pieces of PromQL."""

    def __init__(self, options: RulesOptions) -> None:
        self._selector = options.selector.strip()
        self._scale = options.time_scale
        #: The targets, as a selector without a metric.
        self.targets = f"{{{self._selector}}}"
        #: The labels that tell one service from another; those of the selector survive with them.
        self.names = tuple(dict.fromkeys((*options.group_by, *options.selected)))
        #: The same as the template of a message, which names the service.
        self.service = " ".join(f"{{{{ $labels.{name} }}}}" for name in self.names)

    def series(self, metric: MetricSpec | str, *matchers: str, suffix: str = "") -> str:
        """Return the selector of a metric's series, or of recorded ones."""
        name = metric if isinstance(metric, str) else metric.name
        return f"{name}{suffix}{{{','.join((self._selector, *matchers))}}}"

    def by(self, *more: str) -> str:
        """Return the labels to aggregate by or to match on, in brackets."""
        return f"({', '.join(dict.fromkeys((*self.names, *more)))})"

    def named(self, name: str, *more: str) -> str:
        """Return a recording's name with its level in front: the labels that it is aggregated by."""
        return f"{'_'.join(dict.fromkeys((*self.names, *more)))}:{name}"

    def seconds(self, wanted: float) -> float:
        """Return the length of a window or wait, scaled."""
        return wanted * self._scale

    def window(self, wanted: float) -> str:
        """Return a window of so many seconds, scaled, as PromQL writes it."""
        return written(self.seconds(wanted))

    def over(self, metric: MetricSpec | str, limit: float, limits: Mapping[str, float]) -> str:
        """Return what says that a queue's series is above *limit*, or above its own of *limits*."""
        branches = []
        for name, own in limits.items():
            matcher = f'queue_name="{name}"'
            branches.append(f"{self.series(metric, matcher)} > {own:g}")
        others = "|".join(name.replace(".", r"\\.") for name in limits)
        rest = self.series(metric, *([f'queue_name!~"{others}"'] if others else []))
        return "\nor\n".join([*branches, f"{rest} > {limit:g}"])
