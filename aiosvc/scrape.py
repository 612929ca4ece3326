"""
The answer to a scrape: a registry and a scraper's headers in, a body and its headers out.

Rule: knows no server. Rule: nothing that a scraper sends makes this fail.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder

__all__ = ["scrape"]


def scrape(
    registry: CollectorRegistry, accept: str, names: Sequence[str] = ()
) -> tuple[bytes, str]:
    """
    Return the exposition of *registry* and its content type.

    *accept* is the Accept header; one that makes no sense gets the text format 0.0.4. *names* are
    sample names to restrict the answer to, all when empty.
    """
    try:
        encoder, content_type = choose_encoder(accept)
    except Exception:  # noqa: BLE001 - prometheus_client raises TypeError for odd versions
        encoder, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
    source = registry.restricted_registry(names) if names else registry
    return encoder(source), content_type
