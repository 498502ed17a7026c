"""Decisions on pairs and crops, label conflicts, and indexes of the review queues."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "pair_decisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("one_id", sa.Integer(), nullable=False),
        sa.Column("other_id", sa.Integer(), nullable=False),
        sa.Column("same", sa.Boolean(), nullable=False),
        sa.Column("moved", sa.String(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("made", sa.DateTime(), nullable=False),
        sa.Column("undone", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["one_id"], ["images.id"], name="fk_pair_decisions_one_id_images"),
        sa.ForeignKeyConstraint(
            ["other_id"], ["images.id"], name="fk_pair_decisions_other_id_images"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_pair_decisions"),
    )
    op.create_index("ix_pair_decisions_one_id", "pair_decisions", ["one_id"])
    op.create_index("ix_pair_decisions_other_id", "pair_decisions", ["other_id"])
    op.create_table(
        "crop_decisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("made", sa.DateTime(), nullable=False),
        sa.Column("undone", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name="fk_crop_decisions_image_id_images"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_crop_decisions"),
    )
    op.create_index("ix_crop_decisions_image_id", "crop_decisions", ["image_id"])
    op.create_table(
        "conflicts",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("labels", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_conflicts_image_id_images"),
        sa.PrimaryKeyConstraint("image_id", name="pk_conflicts"),
    )
    op.create_index(
        "ix_judgements_verdict_cost_image_id",
        "judgements",
        ["verdict", sa.text("cost DESC"), "image_id"],
    )
    op.drop_index("ix_judgements_verdict", "judgements")
    op.create_index("ix_resemblances_likeness", "resemblances", ["likeness"])
    op.create_index("ix_crops_score_image_id", "crops", ["score", "image_id"])
