# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verifier: the example of RFC 7677, and the server's own library."""

from __future__ import annotations

import base64
import hashlib
import hmac

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.servers.scram import check_password, verifier
from demo.postgres import PostgresServer

#: RFC 7677, section 3: the messages of a whole exchange, joined as RFC 5802 calls AuthMessage.
_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
_MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
_PROOF = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
_SIGNATURE = base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_the_example_of_the_rfc() -> None:
    text = verifier(b"pencil", _SALT, 4096)
    head, keys = text.rsplit("$", 1)
    assert head == "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    stored, server = (base64.b64decode(part) for part in keys.split(":"))
    assert hmac.new(server, _MESSAGE, hashlib.sha256).digest() == _SIGNATURE
    signature = hmac.new(stored, _MESSAGE, hashlib.sha256).digest()
    client_key = bytes(one ^ other for one, other in zip(_PROOF, signature))
    assert hashlib.sha256(client_key).digest() == stored


def test_the_server_library_makes_the_same(server: PostgresServer) -> None:
    with psycopg.connect(server.admin_dsn) as link:
        theirs = link.pgconn.encrypt_password(b"a pass'word\\$", b"somebody", b"scram-sha-256").decode()
    salt = base64.b64decode(theirs.split("$")[1].split(":")[1])
    assert verifier(b"a pass'word\\$", salt, 4096) == theirs


@pytest.mark.parametrize("password", [b"", "gr\u00fcn".encode(), b"tab\there", b"nul\0", b"del\x7f"])
def test_what_clients_would_read_differently_is_refused(password: bytes) -> None:
    with pytest.raises(KeyturnError) as raised:
        check_password(password, "role app")
    assert raised.value.code == "password-unusable"
    assert password == b"" or password.decode() not in str(raised.value)
