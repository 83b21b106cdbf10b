"""The cache forgets, but never lies, and keeps to its bound."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responder import cache as cache_module
from responder.cache import ENTRIES_MAX, ENTRY_BYTES, GenerationCache


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 400)), max_size=300), st.integers(500, 5000))
def test_what_is_found_is_what_was_put_last(puts: list[tuple[int, int]], bytes_max: int) -> None:
    """Against a dictionary: an entry is the last one put under its key, or it is forgotten; the bytes kept
    never exceed the bound."""
    cache: GenerationCache[int, tuple[int, int]] = GenerationCache(bytes_max)
    model: dict[int, tuple[int, int]] = {}
    for turn, (key, size) in enumerate(puts):
        cache.put(key, (turn, size), size)
        model[key] = (turn, size)
        fits = size + ENTRY_BYTES <= bytes_max // 2
        assert cache.get(key) == (turn, size) or not fits
        for other, value in model.items():
            assert cache.get(other) in (None, value)
        assert cache.size <= bytes_max


def test_what_is_used_stays() -> None:
    """An entry that is put again in every generation is never forgotten; the others are."""
    cache: GenerationCache[int, str] = GenerationCache(10 * (ENTRY_BYTES + 100))
    for n in range(1, 100):
        cache.put(0, "used", 100)
        cache.put(n, "once", 100)
        assert cache.get(0) == "used"
    assert cache.get(1) is None
    assert len(cache) <= 12


def test_small_entries_are_gone_before_large_ones_fill_a_generation() -> None:
    """Answers for one certificate followed by answers for many: no turn finds anything left to free."""
    cache: GenerationCache[int, object] = GenerationCache(4000 * 2000)
    for n in range(9000):
        cache.put(n, object(), 1500)
    most = cache.left
    for n in range(9000, 10_000):
        young, left = cache.young, cache.left
        cache.put(n, object(), 25_000)
        if cache.young is not young:
            assert left <= 29
            most = max(most, cache.left)
        else:
            assert left - cache.left <= 29
    assert most > 1000


def test_what_is_forgotten_is_let_go_of_a_few_entries_at_a_time() -> None:
    """Nothing of it is found, nothing of it counts, and no put frees more than of a dropped generation."""
    cache: GenerationCache[int, object] = GenerationCache(4000 * 2000)
    for n in range(3000):
        cache.put(n, object(), 1500)
    cache.forget()
    assert (len(cache), cache.size, cache.left) == (0, 0, 3000)
    assert all(cache.get(n) is None for n in range(3000))
    for n in range(1000):
        left = cache.left
        cache.put(n, object(), 1500)
        assert left - cache.left <= 5
    assert (len(cache), cache.left) == (1000, 0)


def test_a_dropped_generation_is_freed_in_small_pieces() -> None:
    """No put frees more than a few entries, and all are gone before the next generation drops."""
    cache: GenerationCache[int, object] = GenerationCache(2000 * ENTRY_BYTES)
    left = []
    for n in range(5000):
        before = cache.left
        cache.put(n, object(), 0)
        after = cache.left
        assert before - after <= 4 or after > before
        left.append(after)
    assert max(left) > 900
    assert left.count(0) > 1000


def test_a_dictionary_that_is_full_has_never_grown_with_very_many_in_it() -> None:
    """What one put may cost at most is moving the entries to twice the places."""
    cache: GenerationCache[int, object] = GenerationCache(1 << 40)
    places, moved = 0, []
    for n in range(2 * ENTRIES_MAX + 10):
        cache.put(n, n, 0)
        now = sys.getsizeof(cache.young)
        if now > places:
            moved.append(len(cache.young))
        places = now
    assert 40_000 < max(moved) < 50_000
    assert len(cache) == 2 * ENTRIES_MAX + 10
    assert cache.get(0) == 0


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 400)), max_size=300),
    st.integers(500, 50_000),
    st.integers(1, 20),
)
def test_generations_that_end_by_their_number_keep_to_the_bound(
    puts: list[tuple[int, int]], bytes_max: int, entries_max: int
) -> None:
    """The same as of those that end by their bytes, and of the latest as much is kept as fits into a half."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "ENTRIES_MAX", entries_max)
        cache: GenerationCache[int, tuple[int, int]] = GenerationCache(bytes_max)
        model: dict[int, tuple[int, int]] = {}
        for turn, (key, size) in enumerate(puts):
            cache.put(key, (turn, size), size)
            model[key] = (turn, size)
            assert cache.get(key) == (turn, size) or size + ENTRY_BYTES > bytes_max // 2
            for other, value in model.items():
                assert cache.get(other) in (None, value)
            assert cache.size <= bytes_max
            assert len(cache.young) <= entries_max
        if not any(size + ENTRY_BYTES > bytes_max // 2 for _, size in puts):
            recent, room = 0, bytes_max // 2
            for key, size in reversed(puts):
                recent += size + ENTRY_BYTES
                # A generation goes as a whole, and it may be the one that this is in.
                if recent > room - entries_max * (400 + ENTRY_BYTES):
                    break
                assert cache.get(key) is not None
