"""Alembic's entry: runs the migrations on the connection that `migrate.upgrade` hands over, or writes them as SQL."""

from alembic import context

from beray.server.db.tables import metadata

given = context.config.attributes
if context.is_offline_mode():
    context.configure(dialect_name=given["dialect"], output_buffer=given["output"], transactional_ddl=False)
else:
    context.configure(connection=given["connection"], target_metadata=metadata, render_as_batch=True, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
