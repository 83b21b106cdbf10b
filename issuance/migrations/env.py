"""Alembic's entry point: runs the revisions on the connection it is handed.

Knows: that the caller has a transaction open; nothing is committed here.
"""

from __future__ import annotations

from alembic import context

from issuance.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
