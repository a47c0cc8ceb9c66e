"""What Alembic runs for every upgrade, on the connection and within the transaction that `schema.py` opened."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
