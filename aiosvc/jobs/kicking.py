"""
Sending by a taskiq broker.

Rule: what every backend on taskiq has in common, and nothing else.
"""

from taskiq import AsyncBroker, BrokerMessage

from aiosvc.jobs.message import Message

__all__ = ["kick"]


async def kick(broker: AsyncBroker, message: Message, data: bytes) -> None:
    """Send *message*, whose bytes are *data*, in taskiq's own form."""
    sent = BrokerMessage(
        task_id=message.id,
        task_name=message.name,
        message=data,
        # Some brokers send them as headers, which are texts.
        labels={name: str(value) for name, value in message.labels.items()},
    )
    await broker.kick(sent)
