# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of what asks an admin HTTP API for signing keys."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment ``keyturn.rotation.signing_key_api``."""

    DOCUMENTATION = r"""
options:
  name:
    description: The name of the secret.
    type: str
    required: true
  api:
    description:
      - What the API is like. C(base) is the address that all paths are below, C(shape) a preset, V(by_path) or
        V(by_query), which tells how the kid to promote is sent. What else is given goes before the preset.
      - The requests C(list), C(generate), C(promote) and C(disable) have C(method), C(path), C(body) and C(auth). In a
        path and a body C({kid}) stands for the kid.
      - C(token) has C(path), C(client), C(scope) and C(auth) (V(basic) or V(body)). A token is then issued by the
        client-credentials grant to learn which key signs. It is dropped at once.
      - See C(docs/signing-keys.md) of the collection.
    type: dict
    required: true
  bearer:
    description: Where the bearer comes from. Exactly one source.
    type: dict
    suboptions: &reference
      file:
        description: A file of mode C(0600) that holds the value.
        type: path
      env_file:
        description: A dotenv file.
        type: path
      variable:
        description: The variable in the dotenv file.
        type: str
      sealed:
        description: The value, sealed to this host.
        type: str
      value:
        description: The value itself.
        type: str
  headers:
    description:
      - More headers. In a value C({kid}) stands for the kid that the request is about, C({uuid}) for a new UUID each
        time.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the header.
        type: str
        required: true
      text:
        description: A value that is no secret.
        type: str
      file:
        description: A file of mode C(0600) that holds the value.
        type: path
      env_file:
        description: A dotenv file.
        type: path
      variable:
        description: The variable in the dotenv file.
        type: str
      sealed:
        description: The value, sealed to this host.
        type: str
      value:
        description: The value itself, a secret.
        type: str
  client_secret:
    description: Where the secret of the client in C(api.token) comes from. Exactly one source.
    type: dict
    suboptions: *reference
  ca_file:
    description: A PEM file with the certificates to trust instead of the system's.
    type: path
  client_cert:
    description: A client certificate, PEM.
    type: path
  client_key:
    description: Its key, where that is not in the same file.
    type: path
  client_pem:
    description:
      - A client certificate with its key, PEM, that lies in no file of its own. Exactly one source. It is held in
        memory only.
    type: dict
    suboptions: *reference
  shown_to:
    description:
      - Addresses that verify tokens. After a promote each is shown a token of the new key, issued then, or one of the
        former key, issued just before. Who refuses it fails the call. Tokens are dropped afterwards.
      - They need C(api.token). The module C(signing_key_api_info) shows new ones with C(expect=new).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: How reports call it.
        type: str
      version:
        description: Whose token it is shown.
        type: str
        choices: [new, old]
        required: true
      url:
        description: The address.
        type: str
        required: true
      method:
        description: The HTTP method. The default is C(GET), or C(POST) with a body.
        type: str
      headers:
        description: Headers; C({value}) is the token. The default is C(Authorization) with a bearer.
        type: dict
      body:
        description: The body; C({value}) is the token.
        type: str
      expect:
        description: The statuses that mean yes; C(200) by default.
        type: list
        elements: int
      expect_body:
        description: A regular expression that the answer must match.
        type: str
      ca_file:
        description: Certificates to trust.
        type: path
      timeout:
        description: Seconds.
        type: float
        default: 10
  initial:
    description: Whether an issuer without a key that signs gets its first one. On the way back that one stays.
    type: bool
    default: false
  timeout:
    description: Seconds for each wait on the network.
    type: float
    default: 10
"""
