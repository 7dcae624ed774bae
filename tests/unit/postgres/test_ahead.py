# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One batch is written while the next is made ready: in order, and a failure is neither lost nor followed by more."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.ahead import Ahead


def _write(log: list[str], sends: threading.Event, name: str) -> str:
    sends.set()
    log.append(f"{name} in {'the same' if threading.current_thread() is threading.main_thread() else 'another'} thread")
    return name


@pytest.mark.parametrize(("is_on", "thread"), [(True, "another"), (False, "the same")])
def test_all_are_written_in_their_order_and_taken_by_the_caller(is_on: bool, thread: str) -> None:
    sends, log, taken = threading.Event(), list[str](), list[tuple[str, bool]]()

    def take(name: str) -> None:
        taken.append((name, threading.current_thread() is threading.main_thread()))

    with Ahead(take, sends, is_on) as ahead:
        for name in "abc":
            ahead.put(partial(_write, log, sends, name))
    assert log == [f"{name} in {thread} thread" for name in "abc"]
    assert taken == [("a", True), ("b", True), ("c", True)]


def test_the_caller_goes_on_as_soon_as_the_write_has_sent() -> None:
    sends, goes_on, taken = threading.Event(), threading.Event(), list[bool]()

    def write() -> bool:
        sends.set()
        return goes_on.wait(30)  # were the write waited for, nobody could set it

    with Ahead(taken.append, sends, is_on=True) as ahead:
        ahead.put(write)
        assert taken == []
        goes_on.set()
        ahead.settle()
        assert taken == [True]
        ahead.settle()
    assert taken == [True]


def test_a_write_that_sends_nothing_holds_nobody_up() -> None:
    taken: list[str] = []
    with Ahead(taken.append, threading.Event(), is_on=True) as ahead:
        ahead.put(lambda: "nothing to write")
    assert taken == ["nothing to write"]


@pytest.mark.parametrize("is_on", [True, False])
def test_after_a_failed_write_nothing_more_is_written(is_on: bool) -> None:
    sends, log, taken = threading.Event(), list[str](), list[str]()

    def fail() -> str:
        raise ValueError("the second failed")

    def write_three() -> None:
        with Ahead(taken.append, sends, is_on) as ahead:
            ahead.put(partial(_write, log, sends, "a"))
            ahead.put(fail)
            ahead.put(partial(_write, log, sends, "c"))

    with pytest.raises(ValueError, match="the second failed"):
        write_three()
    assert taken == ["a"]
    assert len(log) == 1


@pytest.mark.parametrize(("is_stopped", "raised"), [(True, "stopped as asked"), (False, "the next opens under no key")])
def test_what_stopped_a_write_counts_more_than_what_the_next_batch_met(is_stopped: bool, raised: str) -> None:
    sends, log = threading.Event(), list[str]()

    def write() -> str:
        sends.set()
        if is_stopped:
            raise ValueError("stopped as asked")
        return "written"

    def write_and_fail() -> None:
        with Ahead(log.append, sends, is_on=True) as ahead:
            ahead.put(write)
            raise ValueError("the next opens under no key")

    with pytest.raises(ValueError, match=raised):
        write_and_fail()
    assert log == ([] if is_stopped else ["written"])
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("ThreadPool")] == []
