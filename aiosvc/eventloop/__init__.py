"""
The event loop that serves: how late it is, how busy it is, and which line of code blocks it.

Rule: knows asyncio, and no framework. Rule: an idle loop is left to sleep wherever it can be.
"""

from aiosvc.eventloop.stacks import Place
from aiosvc.eventloop.stalls import Stall
from aiosvc.eventloop.watch import LoopWatch

__all__ = ["LoopWatch", "Place", "Stall"]
