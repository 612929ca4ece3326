"""
Objectives, and how fast their error budgets may be used up before somebody is told.

Rule: an objective that no alert could ever see missed, or that leaves nothing to miss, is refused, with
the sum that shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiosvc.errors import ConfigError
from aiosvc.validation import is_number, seconds, wrong

__all__ = ["BURNS", "Burn", "Objective", "check_percent", "parse_objective"]


@dataclass(frozen=True, slots=True)
class Burn:
    """
    How fast an error budget may be used up: *factor* times as fast as lasts for 30 days.

    Both windows, in seconds, must show it: the long one that it is no blip, the short one that it
    goes on. The numbers are those of "Alerting on SLOs" in the SRE workbook.
    """

    factor: float
    long: int
    short: int


#: Who is told: 2 % of the budget in an hour or 5 % in six, and 10 % in a day or in three.
BURNS: Final[Mapping[str, tuple[Burn, Burn]]] = {
    "page": (Burn(14.4, 3_600, 300), Burn(6.0, 21_600, 1_800)),
    "ticket": (Burn(3.0, 86_400, 7_200), Burn(1.0, 259_200, 21_600)),
}


@dataclass(frozen=True, slots=True)
class Objective:
    """A latency objective: *percent* of all requests take *bound* seconds or less."""

    bound: float
    percent: float


def parse_objective(text: str) -> Objective:
    """Return the latency objective that *text*, like '0.25:99', says; ConfigError for any other."""
    bound, _, percent = text.partition(":")
    try:
        objective = Objective(float(bound), float(percent))
    except ValueError:
        raise wrong("latency_slo", text, "SECONDS:PERCENT, like 0.25:99") from None
    seconds(f"latency_slo {text}", objective.bound, at_least=0.0)
    return objective


def check_percent(name: str, value: object) -> None:
    """Refuse a percentage that leaves no budget, or one so large that an alert can't fire."""
    if not is_number(value) or not 0 < value < 100:  # noqa: PLR2004 - percent
        raise wrong(
            name,
            value,
            "a percentage between 0 and 100: where all may fail, or nothing, there is no budget to "
            "watch",
        )
    for burns in BURNS.values():
        for burn in burns:
            share = burn.factor * (100 - value) / 100
            if share >= 1:
                least = 100 - 100 / BURNS["page"][0].factor
                raise ConfigError(
                    f"{name}: {value:g} given; {burn.factor:g} * (1 - {value / 100:g}) = {share:.4g},"
                    f" and no share of requests is above 1, so the alert could never fire; expected "
                    f"more than {least:.2f}"
                )
