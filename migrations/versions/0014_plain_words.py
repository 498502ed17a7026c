"""Rename states and columns to the words of the glossary."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

COLUMNS = (
    ("resemblances", "likeness", "similarity"),
    ("judgements", "given", "tag_probability"),
    ("fingerprints", "looks", "pixels"),
    ("workers", "born", "process_started"),
    ("workers", "beat", "heartbeat"),
    ("workers", "since", "run_started"),
    ("asked_hashtags", "asked", "requested"),
    ("forgotten", "whole", "view_hash"),
    ("crop_decisions", "whole", "keep_whole"),
)
# SQLite cannot rename an index.
INDEXES = (
    ("resemblances", "likeness", "similarity"),
    ("asked_hashtags", "asked", "requested"),
)
STATES = (
    ("sightings", "wanted", "pending"),
    ("sightings", "refused", "rejected"),
    ("images", "refused", "rejected"),
)


def upgrade() -> None:
    # Both databases rename a column without a copy of the table.
    for table, old, new in COLUMNS:
        op.alter_column(table, old, new_column_name=new)
    for table, old, new in INDEXES:
        op.drop_index(f"ix_{table}_{old}", table)
        op.create_index(f"ix_{table}_{new}", table, [new])
    for table, old, new in STATES:
        rows = sa.table(table, sa.column("state"))
        op.execute(rows.update().where(rows.c.state == old).values(state=new))
    for table in ("sightings", "images"):
        rows = sa.table(table, sa.column("state"), sa.column("reason"))
        taken_down = sa.and_(rows.c.state == "rejected", rows.c.reason == "forgotten")
        op.execute(rows.update().where(taken_down).values(reason="taken down"))
    judgements = sa.table("judgements", sa.column("nearest"))
    # In a label a quotation mark has a backslash before it, so only keys match.
    old, new = '"likeness":', '"similarity":'
    op.execute(
        judgements.update()
        .where(judgements.c.nearest.contains(old))
        .values(nearest=sa.func.replace(judgements.c.nearest, old, new))
    )
