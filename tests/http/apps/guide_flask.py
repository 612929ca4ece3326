"""What guides show for Flask, and what it becomes: one call, and a metric of one's own beside it."""

from flask import Flask
from prometheus_client import Counter

import aiosvc.wsgi

app = Flask(__name__)
listed = Counter("users_listed", "Times that the users were listed.")


@app.route("/health")
def health() -> tuple[dict[str, str], int]:
    """Say that it is well."""
    return {"status": "healthy"}, 200


@app.route("/api/users")
def get_users() -> tuple[dict[str, list[str]], int]:
    """List the users."""
    listed.inc()
    return {"users": []}, 200


@app.route("/api/users/<int:id>")
def get_user(id: int) -> dict[str, int]:  # noqa: A002 - the template's name for it
    """Return a user."""
    return {"id": id}


aiosvc.wsgi.setup(app)
