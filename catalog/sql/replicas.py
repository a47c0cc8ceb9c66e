"""The replicas of an owner: who beats, who is forgotten."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from catalog.changes import REPLICA_SECONDS
from catalog.sql.tables import replicas
from catalog.types import Replica


async def store_beat(connection: AsyncConnection, replica: Replica, *, owner: str, now: float) -> tuple[Replica, ...]:
    """Puts a replica in place of what it told before, forgets who is silent, and answers who is left, by their ids.

    The owner's lock is held: nobody is between.
    """
    of = replicas.c
    old = (of.replica_id == replica.replica_id) | (of.beat_time <= now - REPLICA_SECONDS)
    await connection.execute(delete(replicas).where(of.owner == owner, old))
    row = {
        "owner": owner,
        "replica_id": replica.replica_id,
        "address": replica.address,
        "incarnation": replica.incarnation,
        "beats": replica.beats,
        "beat_time": now,
    }
    await connection.execute(insert(replicas), [row])
    found = await connection.execute(
        select(of.replica_id, of.address, of.incarnation, of.beats, of.beat_time).where(of.owner == owner)
    )
    # Sorted here: databases order text by their own rules.
    return tuple(sorted((Replica(*each) for each in found), key=lambda each: each.replica_id))


async def remove(connection: AsyncConnection, replica: Replica, *, owner: str) -> None:
    """Forgets a replica, in this life of it."""
    of = replicas.c
    ours = (of.owner == owner) & (of.replica_id == replica.replica_id) & (of.incarnation == replica.incarnation)
    await connection.execute(delete(replicas).where(ours))
