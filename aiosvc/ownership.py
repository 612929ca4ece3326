"""
Which names of a registry are ours to export.

Rule: a name is exported by one collector of a registry, and it is ours only where nobody else has
it; no collector of anybody's is called at a start to find that out.

Theory of operation. A registry knows the names of collectors that describe themselves, and of all
others if it describes them itself (prometheus_client's default one): whether a name is free is found
by offering it. A standard name like `process_open_fds` that is taken when our collector is made
stays with its owner; one that is free is ours from then on, and the registry refuses whoever brings
it later, by an error at the place that registers. A ProcessCollector does not describe itself. In a
registry of one's own it is looked for whenever the process is read, and from then on the names that
it exports are not ours. The families of a user's source are offered when they first come.
"""

from collections.abc import Iterator
from weakref import ref

from prometheus_client import CollectorRegistry, Metric, ProcessCollector

from aiosvc.catalogue import CATALOGUE, MetricSpec
from aiosvc.clientmetrics import collectors_of

__all__ = ["Ownership", "family_of"]

STANDARD = frozenset(spec for spec in CATALOGUE if spec.standard)


def family_of(spec: MetricSpec) -> Metric:
    """Return the family of *spec*, without samples."""
    if spec.clashes:
        return Metric(spec.name, spec.help, "unknown")
    name = spec.name.removesuffix("_total") if spec.kind == "counter" else spec.name
    return Metric(name, spec.help, spec.kind)


class Ownership:
    """What is ours in one registry; without one, all is."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = None if registry is None else ref(registry)
        self._taken = frozenset(s for s in STANDARD if not self._is_free(family_of(s)))
        self._families: dict[str, bool] = {}

    def exports(self, spec: MetricSpec) -> bool:
        """Say whether *spec* is ours to export, as all are but some standard names."""
        return spec not in self._taken

    def admits(self, family: Metric) -> bool:
        """Say whether a family of a user's source may be exported; found out when it first comes."""
        known = self._families.get(family.name)
        if known is None:
            known = self._families[family.name] = self._is_free(family)
        return known

    def reconsider(self) -> None:
        """Find out anew which families of users' sources may be exported: names were taken since."""
        self._families.clear()

    def look(self) -> None:
        """Leave to any ProcessCollector in the registry the standard names that it exports."""
        registry = None if self._registry is None else self._registry()
        if registry is None or self._taken == STANDARD:
            return
        try:
            collectors = collectors_of(registry, None) or ()
        except AttributeError:
            return  # prometheus_client keeps them elsewhere; what it knows by name is known
        for each in collectors:
            if isinstance(each, ProcessCollector):
                try:
                    found = {family.name for family in each.collect()}
                except Exception:  # noqa: BLE001 - it fails at a scrape too, and is counted there
                    self._taken = STANDARD
                    return
                self._taken |= {spec for spec in STANDARD if family_of(spec).name in found}

    def _is_free(self, family: Metric) -> bool:
        registry = None if self._registry is None else self._registry()
        if registry is None:
            return True
        claim = _Claim(family)
        try:
            registry.register(claim)
        except ValueError:
            return False
        registry.unregister(claim)
        return True


class _Claim:
    """A collector that has a name and nothing else."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def describe(self) -> Iterator[Metric]:
        yield self._family

    def collect(self) -> Iterator[Metric]:
        yield from ()
