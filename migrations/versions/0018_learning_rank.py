"""The order in which decisions on doubtful tags teach a model most."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    # Both databases add a column without a copy of the table.
    op.add_column("judgements", sa.Column("learning_rank", sa.Integer(), nullable=True))
