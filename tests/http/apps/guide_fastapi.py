"""What guides show for FastAPI, and what it becomes: one call, and a metric of one's own beside it."""

from fastapi import FastAPI
from prometheus_client import Counter

import aiosvc.asgi

app = FastAPI()
listed = Counter("users_listed", "Times that the users were listed.")


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that it is well."""
    return {"status": "healthy"}


@app.get("/api/users")
async def get_users() -> dict[str, list[str]]:
    """List the users."""
    listed.inc()
    return {"users": []}


@app.get("/api/users/{id}")
async def get_user(id: int) -> dict[str, int]:  # noqa: A002 - the template's name for it
    """Return a user."""
    return {"id": id}


aiosvc.asgi.setup(app)
