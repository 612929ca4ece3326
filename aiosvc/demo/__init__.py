"""
A small real service, orders and an e-mail queue, that shows what aiosvc measures.

Rule: it uses aiosvc the way any application would, by its public names, and nothing imports it but
the command line.
"""

from aiosvc.demo.service import make_app
from aiosvc.demo.sharedemail import emails

__all__ = ["emails", "make_app"]
