"""The other side of `start` and `memory`: the least server of BeRay's kind that stands on the same libraries.

    python -m benchmarks.plain_app PORT DATABASE

uvicorn, FastAPI and SQLAlchemy: a table in SQLite, a route that reads it, and /health. It ends with SIGTERM.
"""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select


class Note(BaseModel):
    """What the route answers."""

    id: int
    text: str


def make_app(database: str) -> FastAPI:
    """The application, its table made."""
    metadata = MetaData()
    notes = Table("note", metadata, Column("id", Integer, primary_key=True), Column("text", String, nullable=False))
    engine = create_engine(f"sqlite:///{database}")
    metadata.create_all(engine)
    web = FastAPI()

    @web.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @web.get("/notes", response_model=list[Note])
    async def list_notes() -> Any:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(notes)).mappings()]

    return web


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
