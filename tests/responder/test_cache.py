"""The cache forgets, but never lies, and keeps to its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from responder.cache import ENTRY_BYTES, GenerationCache


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
    most = len(cache._dropped)
    for n in range(9000, 10_000):
        old, left = cache._old, len(cache._dropped)
        cache.put(n, object(), 25_000)
        if cache._old is not old:
            assert left <= 29
            most = max(most, len(cache._dropped))
        else:
            assert left - len(cache._dropped) <= 29
    assert most > 1000


def test_a_dropped_generation_is_freed_in_small_pieces() -> None:
    """No put frees more than a few entries, and all are gone before the next generation drops."""
    cache: GenerationCache[int, object] = GenerationCache(2000 * ENTRY_BYTES)
    left = []
    for n in range(5000):
        before = len(cache._dropped)
        cache.put(n, object(), 0)
        after = len(cache._dropped)
        assert before - after <= 4 or after > before
        left.append(after)
    assert max(left) > 900
    assert left.count(0) > 1000
