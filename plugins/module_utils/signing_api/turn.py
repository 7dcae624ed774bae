# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rotation by an API, step by step: each looks first, changes one thing, and looks until that is seen.

An answer that is lost says nothing, so the list and the kid of a fresh token decide what was done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.polling import pauses
from ansible_collections.keyturn.rotation.plugins.module_utils.quiet_command import run_quietly
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.answers import Listed
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.client import (
    PASSING,
    Client,
    LostError,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.kept import Kept, Note

__all__ = ["STATES", "UNSEEN", "Seen", "Turn"]

_LONGEST_PAUSE = 5.0
#: What an issuer may show only once somebody has restarted it.
UNSEEN = (*PASSING, "signing-api-not-published", "signing-api-not-promoted", "signing-api-not-disabled")


@dataclass(frozen=True)
class Seen:
    """How the issuer stands.

    :param asks: whether a token was asked for.
    :param issued: its kid; empty where none came.
    """

    listed: Listed
    asks: bool = False
    issued: str = ""

    @property
    def signing(self) -> str:
        """The kid that signs; empty where nothing says so."""
        return self.issued or self.listed.current

    @property
    def is_told(self) -> bool:
        """Whether anything says which key signs, or that none does."""
        return self.asks or self.listed.tells

    def is_signed_by(self, kid: str) -> bool:
        """Whether all that is known says that this key signs."""
        said = ([self.issued] if self.asks else []) + ([self.listed.current] if self.listed.tells else [])
        return bool(said) and all(one == kid for one in said)


@dataclass
class Turn:
    """One call.

    :param restart: the command that restarts an issuer which holds its keys in memory.
    :param wait: seconds to look for what was asked for.
    :param overlap_s: seconds that the new key must have signed before the former one is disabled; None for no matter.
    :param defers: whether somebody else restarts it.
    :param disable_all: whether :meth:`replace` disables every key but the new one, not only the former one.
    :param initial: whether an issuer without a key that signs gets its first one; that one stays on the way back.
    """

    client: Client
    kept: Kept
    check_mode: bool = False
    restart: Sequence[str] = ()
    restart_timeout: float = 120.0
    wait: float = 30.0
    overlap_s: float | None = None
    initial: bool = False
    defers: bool = False
    disable_all: bool = False
    restarted: bool = field(default=False, init=False)
    _may_restart: bool = field(default=True, init=False)

    # -- looking -------------------------------------------------------------------------------------------------------

    def look(self, needs_token: bool = False) -> Seen:
        """The list, and the kid of a fresh token where the API declares how to get one.

        :param needs_token: whether it is an error that none is issued, as by an issuer without a current key.
        """
        listed = self.client.look()
        if not listed.states and not self.initial:
            hint = (
                "Look at the issuer's log, its database and what encrypts its keys, and restore them; where no key can "
                "be restored, say initial: true"
            )
            raise KeyturnError("jwks-empty", "holds no key at all", where=self.place, hint=hint)
        if not self.client.api.get("token"):
            return Seen(listed)
        try:
            return Seen(listed, True, self.client.issued().kid)
        except KeyturnError as error:
            if (needs_token and not self.initial) or error.code not in PASSING:
                raise
        return Seen(listed, True)

    def look_sound(self) -> Seen:
        """As :meth:`look`, and some key must sign.

        :raises KeyturnError: ``signing-api-none``.
        """
        seen = self.look(needs_token=True)
        if seen.is_told and not seen.signing and not self.initial:
            hint = "Promote a key that is listed; where there never was one, say initial: true"
            raise self._refuse("none", "keys are listed, and none of them signs", hint)
        return seen

    @property
    def place(self) -> str:
        """How errors call the API."""
        return str(self.client.api["base"])

    def _until(self, is_right: Callable[[Seen], bool], problem: KeyturnError, restarts: bool = True) -> Seen:
        """Look until it is right. Where that is not so at once, the issuer is restarted once."""
        deadline = 0.0
        steps = pauses(_LONGEST_PAUSE)
        while True:
            try:
                seen = self.look()
                if is_right(seen):
                    return seen
                error = problem
            except KeyturnError as found:
                if found.code not in PASSING:
                    raise
                error = found
            if restarts and self.restart and self._may_restart:
                self._restart()
                continue
            deadline = deadline or time.monotonic() + self.wait
            left = deadline - time.monotonic()
            if left <= 0:
                raise error
            time.sleep(min(next(steps), left))

    def _restart(self) -> None:
        self.restarted, self._may_restart = True, False
        ending = run_quietly(self.restart, self.restart_timeout)
        if ending.code != 0:
            said = ending.reason or f"exit code {ending.code}"
            hint = "Mend it, then run the same call again"
            raise KeyturnError("signing-api-restart", f"the restart failed: {said}", where=self.place, hint=hint)

    def _refuse(self, code: str, message: str, hint: str) -> KeyturnError:
        return KeyturnError(f"signing-api-{code}", message, where=self.place, hint=hint)

    # -- the steps -----------------------------------------------------------------------------------------------------

    def stage(self) -> bool:
        """Make the next key, published and not signing. Says whether this call changed anything."""
        note = self.kept.load()
        if note and note.made:
            self._published(note)
            return False
        seen = self.look_sound()
        if self.check_mode:
            return True
        if note is None:
            note = self.kept.save(Note(self.place, list(seen.listed.states), seen.signing))
            return self._generate(note)
        if not self._new_keys(note, seen) and self._asked_in_vain(note):
            return self._generate(note)
        self._published(self.kept.save(note, made=self._only_new(note)))
        return True

    def _generate(self, note: Note) -> bool:
        try:
            made = self.client.generate()
        except LostError:
            self._published(self.kept.save(note, made=self._only_new(note)))
            return True
        except KeyturnError as error:
            if error.code == "signing-api-refused":
                self.kept.remove()
            raise
        if made in note.before:
            raise self._refuse("answer", "the new key has a kid that was there before", "Correct api.generate.kid")
        self._published(self.kept.save(note, made=made or self._only_new(note)))
        return True

    @staticmethod
    def _new_keys(note: Note, seen: Seen) -> list[str]:
        return [kid for kid in seen.listed.usable if kid not in note.before]

    def _asked_in_vain(self, note: Note) -> bool:
        """Whether an earlier call asked for a key and none came, however long one waits and after a restart."""
        try:
            self._only_new(note)
        except KeyturnError as error:
            if error.code != "signing-api-not-published":
                raise
            self._may_restart = True  # the key that is made now is not loaded by the restart that has shown none
            return True
        return False

    def _only_new(self, note: Note) -> str:
        """The one kid that was not there before."""
        hint = "Run the same call again: it looks first, and asks for a key only if there is still none"
        missing = self._refuse("not-published", "no new key is listed", hint)
        found = self._new_keys(note, self._until(lambda seen: bool(self._new_keys(note, seen)), missing))
        if len(found) > 1:
            hint = "Somebody else makes keys too. Disable what is too much, then run the same call again"
            raise self._refuse("ambiguous", f"several new keys are listed: {', '.join(found)}", hint)
        return found[0]

    def _published(self, note: Note) -> None:
        """Wait until the new key is listed, and refuse one that signs before it was promoted."""
        seen = self._until_listed(note)
        if note.former and not note.promoting and note.made in (seen.issued, seen.listed.current):
            hint = "Verifiers may not know it yet. Promote the former key, or wait for them and go on"
            raise self._refuse("early", f"the new key {note.made!r} signs already", hint)

    def _until_listed(self, note: Note) -> Seen:
        hint = "See whether the issuer still has the key that it made; give restart if it holds its keys in memory"
        missing = self._refuse("not-published", "the new key is not listed", hint)
        return self._until(lambda seen: note.made in seen.listed.usable, missing)

    def promote(self) -> bool:
        """Let the new key sign."""
        note = self._staged()
        seen = self.look()
        self._refuse_missing(note.made, seen)
        if seen.is_told and seen.is_signed_by(note.made):
            return self._promoted_already(note)
        if not seen.is_told and note.signs == note.made:
            return False
        if note.former and seen.signing not in ("", note.former, note.made):
            hint = "Somebody else has promoted it. Nothing was changed"
            raise self._refuse("astray", f"neither the former nor the new key signs, but {seen.signing!r}", hint)
        if not self.check_mode:
            self._make_current(note, note.made)
        return True

    def _promoted_already(self, note: Note) -> bool:
        """The answer to an earlier call may have been lost; the time is noted then."""
        if note.signs == note.made or self.check_mode:
            return False
        self.kept.save(note, signs=note.made, promoted_at=time.time())
        return True

    def _make_current(self, note: Note, kid: str) -> None:
        """Ask, and believe only what is seen then: that key signs, and the other one is accepted still."""
        note = self.kept.save(note, promoting=True)
        lost: LostError | None = None
        try:
            self.client.change("promote", kid)
        except LostError as error:
            lost = error
        hint = "Run the same call again, or go back with state rolled_back"
        wrong = lost or self._refuse("not-promoted", f"tokens are not signed with {kid!r}", hint)
        seen = self._until(lambda seen: seen.is_signed_by(kid) if seen.is_told else lost is None, wrong)
        self.kept.save(note, signs=kid, promoted_at=time.time())
        for other in filter(None, (note.former, note.made)):
            if other in note.before and other not in seen.listed.usable:
                hint = "Tokens that it signed are refused. See what promote does there"
                raise self._refuse("former-gone", f"the former key {other!r} is not listed any more", hint)

    def disable(self) -> bool:
        """Disable the former key, which is not the one that signs."""
        if "disable" not in self.client.api:
            hint = "Declare api.disable, or disable the row with the module signing_key"
            raise self._refuse("no-disable", "this API disables no keys", hint)
        note = self._staged()
        if not note.former and self.initial:
            return False
        if not note.former:
            hint = "Declare api.token or api.list.current, so that it is known which key signed"
            raise self._refuse("unknown", "it is not known which key was the former one", hint)
        seen = self.look()
        self._refuse_missing(note.made, seen)
        if note.signs != note.made or (seen.is_told and not seen.is_signed_by(note.made)):
            raise self._refuse("not-promoted", "the new key does not sign", "Promote it first")
        if note.former not in seen.listed.usable:
            return False
        self._refuse_early(note)
        if not self.check_mode:
            self.kept.save(note, disabling=True)
            self._disable(note.former)
        return True

    def _refuse_early(self, note: Note) -> None:
        left = 0.0 if self.overlap_s is None else note.promoted_at + self.overlap_s - time.time()
        if left > 0:
            hint = "Tokens of the former key may still be in use. Wait, or set early"
            raise self._refuse("overlap", f"the new key must sign for {left:.0f} more seconds", hint)

    def _disable(self, kid: str) -> None:
        lost: LostError | None = None
        try:
            self.client.change("disable", kid)
        except LostError as error:
            lost = error
        wrong = lost or self._refuse("not-disabled", f"the key {kid!r} is accepted still", "Look at the issuer")
        self._until(lambda seen: kid not in seen.listed.usable, wrong)

    def roll_back(self) -> bool:
        """Let the former key sign again. The new one stays listed: tokens that it signed are accepted."""
        note = self.kept.load()
        if note is None:
            return False
        if note.forward_only:
            hint = "A key that is compromised is not brought back. Make another one with a new rotation"
            raise self._refuse("forward-only", "this rotation goes forward only", hint)
        seen = self.look()
        if not note.former and note.promoting and not self.initial:
            hint = "Declare api.token or api.list.current, or promote the former key by hand"
            raise self._refuse("unknown", "it is not known which key was the former one", hint)
        if not note.former or (seen.is_told and seen.is_signed_by(note.former)):
            return False
        self._refuse_missing(note.former, seen)
        if seen.signing not in ("", note.former, note.made):
            hint = "Somebody else has promoted it. Nothing was changed"
            raise self._refuse("astray", f"neither the former nor the new key signs, but {seen.signing!r}", hint)
        if not self.check_mode:
            self._make_current(note, note.former)
        return True

    def replace(self) -> bool:
        """For emergencies: make a key, let it sign, and disable what signed before, without an overlap.

        An issuer that somebody else restarts is asked for all of it first, and looked at once at the end. One that this
        call restarts is so before the promote too, where the new key is not listed: see :meth:`_refuse_missing`.
        """
        if "disable" not in self.client.api:
            hint = "Declare disable. Or run rotate, and take the compromised key away by the issuer's own means"
            raise self._refuse("no-disable", "this API disables no keys", hint)
        note = self.kept.load()
        seen = self.look()
        if note and note.made and self._is_replaced(note, seen):
            return self._promoted_already(note)
        if note is None:
            seen = self._told(seen)
            note = Note(self.place, list(seen.listed.states), seen.signing)
        goes_on = note.forward_only
        others = note.others if goes_on else self.kept.kids_of_others()
        if not self.check_mode:
            self._replace(self.kept.save(note, forward_only=True, others=others), seen, goes_on)
        return True

    def _told(self, seen: Seen) -> Seen:
        """How it stands once something says which key signs, and so is compromised. A lost answer says nothing."""
        if seen.signing or self.disable_all or self.initial:
            return seen
        hint = (
            "Nothing was changed. See why no token is issued, or disable every key but the new one: "
            "keyturn_disable=all, or disable: all of the module"
        )
        unknown = self._refuse("unknown", "it is not known which key signs, and so is compromised", hint)
        return self._until(lambda seen: bool(seen.signing), unknown, restarts=False)

    def _is_asked_for(self, note: Note, seen: Seen, goes_on: bool) -> bool:
        """Whether an earlier call has asked for the key. One in memory is listed only after a restart."""
        if self._new_keys(note, seen):
            return True
        return goes_on and bool(self.restart) and not self._asked_in_vain(note)

    def _replace(self, note: Note, seen: Seen, goes_on: bool) -> None:
        if not note.made:
            made = "" if self._is_asked_for(note, seen, goes_on) else self.client.generate()
            note = self.kept.save(note, made=made or self._only_new(note))
        hint = "Run the same call again: it goes on, and nothing is brought back"
        if not (seen.is_told and seen.is_signed_by(note.made)):
            if not self.defers:
                self._until_listed(note)
                self._may_restart = True
            note = self.kept.save(note, promoting=True)
            self.client.change("promote", note.made)
            if not (self.restart or self.defers):
                wrong = self._refuse("not-promoted", f"tokens are not signed with {note.made!r}", hint)
                self._until(lambda seen: not seen.is_told or seen.is_signed_by(note.made), wrong)
            note = self.kept.save(note, signs=note.made, promoted_at=time.time())
        refused = self._disable_compromised(note)
        message = f"the new key does not sign, or a former one is accepted still{refused}"
        wrong = self._refuse("not-disabled", message, hint)
        self._until(lambda seen: self._is_replaced(note, seen), wrong)

    def _disable_compromised(self, note: Note) -> str:
        """Ask for each that is listed. What an earlier call has asked for may be refused now: the list may be late."""
        self.kept.save(note, disabling=True)
        listed, refused = self.client.look().usable, ""
        for kid in self._compromised(note):
            if kid not in listed:
                continue
            try:
                self.client.change("disable", kid)
            except KeyturnError as error:
                if error.code != "signing-api-refused" or not note.disabling:
                    raise
                refused = f"; to disable {kid!r} was refused: {error.message}"
        return refused

    def _compromised(self, note: Note) -> list[str]:
        """The key that signed, and those that rotations before left to be accepted. Keys that none made stay."""
        kids = [*note.before, *note.others] if self.disable_all else [note.former, *note.others]
        return [kid for kid in dict.fromkeys(kids) if kid not in ("", note.made)]

    def _is_replaced(self, note: Note, seen: Seen) -> bool:
        gone = not set(self._compromised(note)) & set(seen.listed.usable)
        return gone and note.made in seen.listed.usable and (not seen.is_told or seen.is_signed_by(note.made))

    def _staged(self) -> Note:
        note = self.kept.load()
        if note is None or not note.made:
            raise self._refuse("not-staged", "this rotation has made no key", "Call it with state staged first")
        return note

    def _refuse_missing(self, kid: str, seen: Seen) -> None:
        """An API may take the current key's mark away before it looks for the kid that it was given."""
        if kid not in seen.listed.usable:
            hint = "Nothing was changed. See who has removed or disabled it"
            raise self._refuse("key-gone", f"the key {kid!r} is not listed", hint)


#: What each state of the module does.
STATES: dict[str, Callable[[Turn], bool]] = {
    "staged": Turn.stage,
    "promoted": Turn.promote,
    "disabled": Turn.disable,
    "replaced": Turn.replace,
    "rolled_back": Turn.roll_back,
}
