"""
The sampler: what is read in the background, each source on its own schedule.

Rule: a scrape reads what was sampled last and waits for nobody; a source that fails or hangs costs
only itself.
"""

from aiosvc.sampling.conversion import Collector, Sampled
from aiosvc.sampling.sampler import Sampler

__all__ = ["Collector", "Sampled", "Sampler"]
