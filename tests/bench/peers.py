# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How others re-encrypt the same table, run for real: each a function of the connection string and both keys.

They are written as the documents and commands that they stand for do it, with the libraries these use.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from functools import partial

import psycopg
from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import BigInteger, Engine, Text, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy_utils import EncryptedType
from sqlalchemy_utils.types.encrypted.encrypted_type import AesEngine

__all__ = ["GCM_PEERS", "airflow_command", "fill_superset", "superset_command"]

Peer = Callable[[str, str, str], object]


def _turn(cell: str, old: AESGCM, new: AESGCM) -> str:
    raw = base64.b64decode(cell)
    nonce = os.urandom(12)
    return base64.b64encode(nonce + new.encrypt(nonce, old.decrypt(raw[:12], raw[12:], None), None)).decode()


def per_row_script(dsn: str, old: str, new: str) -> None:
    """All rows read at once, one UPDATE for each, one commit at the end."""
    ciphers = AESGCM(base64.urlsafe_b64decode(old)), AESGCM(base64.urlsafe_b64decode(new))
    with psycopg.connect(dsn) as link:
        for number, cell in link.execute("SELECT id, secret FROM creds ORDER BY id").fetchall():
            link.execute("UPDATE creds SET secret = %s WHERE id = %s", (_turn(cell, *ciphers), number))


def transactions_of_200(dsn: str, old: str, new: str) -> None:
    """Pages of 200 rows by key, one UPDATE for each row, one transaction for each page."""
    ciphers = AESGCM(base64.urlsafe_b64decode(old)), AESGCM(base64.urlsafe_b64decode(new))
    last = -1
    with psycopg.connect(dsn, autocommit=True) as link:
        while rows := link.execute(
            "SELECT id, secret FROM creds WHERE id > %s ORDER BY id LIMIT 200", (last,)
        ).fetchall():
            with link.transaction():
                for number, cell in rows:
                    link.execute("UPDATE creds SET secret = %s WHERE id = %s", (_turn(cell, *ciphers), number))
            last = rows[-1][0]


#: Peers that turn the same AES-GCM cells as ours.
GCM_PEERS: dict[str, Peer] = {"per_row_script": per_row_script, "transactions_of_200": transactions_of_200}


class _Base(DeclarativeBase):
    pass


class _Connection(_Base):
    __tablename__ = "creds"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(Text)


def airflow_command(dsn: str, old: str, new: str) -> None:
    """As ``airflow rotate-fernet-key`` does it: every row through the ORM, ``MultiFernet.rotate`` on its value."""
    fernet = MultiFernet([Fernet(new), Fernet(old)])
    with Session(_engine(dsn)) as session:
        for row in session.query(_Connection):
            row.secret = fernet.rotate(row.secret.encode()).decode()
        session.commit()


def _engine(dsn: str) -> Engine:
    return create_engine("postgresql+psycopg://", creator=partial(psycopg.connect, dsn))


def _encrypted(key: str) -> EncryptedType:
    return EncryptedType(Text, key, AesEngine)


def fill_superset(dsn: str, key: str) -> None:
    """Give every row a value as Superset writes it."""
    kind = _encrypted(key)
    with psycopg.connect(dsn) as link, link.cursor() as cursor:
        rows = cursor.execute("SELECT id, left(secret, 100) FROM creds").fetchall()
        cursor.execute("ALTER TABLE creds DROP COLUMN secret, ADD COLUMN secret bytea")
        values = [(kind.process_bind_param(value, None), number) for number, value in rows]
        cursor.executemany("UPDATE creds SET secret = %s WHERE id = %s", values)


def superset_command(dsn: str, old: str, new: str) -> None:
    """As ``superset re-encrypt-secrets`` does it: every row by itself, through the column types of both keys."""
    before, after = _encrypted(old), _encrypted(new)
    engine = _engine(dsn)
    with engine.begin() as link:
        for row in link.execute(text("SELECT id, secret FROM creds")).fetchall():
            plain = before.process_result_value(bytes(row.secret), engine.dialect)
            value = after.process_bind_param(plain, engine.dialect)
            link.execute(text("UPDATE creds SET secret = :value WHERE id = :id"), {"value": value, "id": row.id})
