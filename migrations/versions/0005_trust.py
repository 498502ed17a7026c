"""Fingerprints, near duplicates, undone clusters, kept splits."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "fingerprints",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("views", sa.LargeBinary(), nullable=False),
        sa.Column("looks", sa.LargeBinary(), nullable=False),
        sa.Column("contrast", sa.Float(), nullable=False),
        sa.Column("blur", sa.Float(), nullable=False),
        sa.Column("text", sa.Float(), nullable=False),
        sa.Column("compared", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name="fk_fingerprints_image_id_images"
        ),
        sa.PrimaryKeyConstraint("image_id", name="pk_fingerprints"),
    )
    op.create_table(
        "resemblances",
        sa.Column("one_id", sa.Integer(), nullable=False),
        sa.Column("other_id", sa.Integer(), nullable=False),
        sa.Column("mirrored", sa.Boolean(), nullable=False),
        sa.Column("likeness", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["one_id"], ["images.id"], name="fk_resemblances_one_id_images"),
        sa.ForeignKeyConstraint(
            ["other_id"], ["images.id"], name="fk_resemblances_other_id_images"
        ),
        sa.PrimaryKeyConstraint("one_id", "other_id", name="pk_resemblances"),
    )
    op.create_table(
        "separations",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("cluster_id", sa.Integer(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("made", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_separations_image_id_images"),
        sa.PrimaryKeyConstraint("image_id", "cluster_id", name="pk_separations"),
    )
    op.create_table(
        "kept_splits",
        sa.Column("scheme", sa.String(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_kept_splits_image_id_images"),
        sa.PrimaryKeyConstraint("scheme", "image_id", name="pk_kept_splits"),
    )
