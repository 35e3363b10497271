"""What the tables share: the names of constraints, and columns that the database fills."""

from datetime import datetime

from sqlalchemy import Column, DateTime, MetaData, func

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def now_column(name: str) -> Column[datetime]:
    """A time that the database sets when the row is made."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())
