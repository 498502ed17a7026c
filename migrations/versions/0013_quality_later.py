"""Quality columns are empty until they are measured after the crawl."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    with op.batch_alter_table("fingerprints") as table:
        for name in ("contrast", "blur", "text"):
            table.alter_column(name, existing_type=sa.Float(), nullable=True)
