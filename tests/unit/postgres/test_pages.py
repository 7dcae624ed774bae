# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a table is cut up."""

from __future__ import annotations

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pages import Pages, finer_at_the_end


def _ranges(*lengths: int) -> list[Pages]:
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    return [Pages("public", "creds", end - length, end, False) for length, end in zip(lengths, ends)]


@pytest.mark.parametrize("lengths", [(10, 10, 10, 10), (10, 10, 9, 1), (1, 1, 1), (7,), ()])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_finer_end_covers_the_same_pages(lengths: tuple[int, ...], workers: int) -> None:
    ranges = _ranges(*lengths)
    finer = finer_at_the_end(ranges, workers)
    covered = [page for pages in finer for page in range(pages.first, pages.end)]
    assert covered == list(range(sum(lengths)))
    assert len(finer) >= len(ranges)


def test_only_the_last_ranges_are_cut() -> None:
    finer = finer_at_the_end(_ranges(10, 10, 10, 9), 2)
    assert [pages.end - pages.first for pages in finer] == [10, 10, 3, 3, 3, 1, 3, 3, 3]


def test_few_ranges_stay_whole() -> None:
    ranges = _ranges(10, 10)
    assert finer_at_the_end(ranges, 3) == ranges
