"""The combinators for asynchronous iterables; every test ends with no task left."""

import asyncio
import itertools
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustllm.errors import ArgumentError
from rustllm.stream import aio

lists = st.lists(st.lists(st.integers(), max_size=6), max_size=4)


def run(coroutine):
    """Run to the end and see that no task but the main one is left."""

    async def main():
        result = await coroutine
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set()
        return result

    return asyncio.run(main())


async def collect(source):
    return [item async for item in source]


async def ticking(items, pulled=None, closed=None):
    try:
        for item in items:
            await asyncio.sleep(0)
            if pulled is not None:
                pulled.append(item)
            yield item
    finally:
        if closed is not None:
            closed.append(True)


async def double(x):
    for _ in range(x % 3):
        await asyncio.sleep(0)
    return 2 * x


@settings(max_examples=30, deadline=None)
@given(lists, st.integers(1, 3))
def test_the_combinators_agree_with_their_plain_twins(sources, size):
    from rustllm import stream

    async def main():
        got = await collect(aio.zip_longest(*map(ticking, sources), fill="x"))
        assert got == list(stream.zip_longest(*sources, fill="x"))
        got = await collect(aio.interleave(*map(ticking, sources), size=size))
        assert got == list(stream.interleave(*sources, size=size))
        got = await collect(aio.interleave(*sources, size=size))
        assert got == list(stream.interleave(*sources, size=size))
        got = await collect(aio.merge(*map(ticking, sources), n=size))
        assert sorted(got) == sorted(itertools.chain(*sources))
        for source in sources:
            assert await collect(aio.prefetch(ticking(source), size)) == source
            assert await collect(aio.map(double, ticking(source), limit=size)) == [
                2 * x for x in source
            ]
            got = await collect(aio.map(double, source, limit=size, ordered=False))
            assert sorted(got) == sorted(2 * x for x in source)
            assert await collect(aio.from_sync(source)) == source
            assert await collect(aio.pipe(source, aio.prefetch, lambda s: aio.map(double, s))) == [
                2 * x for x in source
            ]

    run(main())


@pytest.mark.parametrize("n", [1, 3])
def test_prefetch_reads_ahead_up_to_its_bound(n):
    async def main():
        pulled = []
        async with aclosing(aio.prefetch(ticking(itertools.count(), pulled), n)) as ahead:
            for taken in range(1, 5):
                assert await anext(ahead) == taken - 1
                for _ in range(50):
                    await asyncio.sleep(0)
                assert len(pulled) == taken + n

    run(main())


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("ordered", [True, False])
def test_map_keeps_to_its_limit(limit, ordered):
    async def main():
        pulled, active, peak = [], 0, 0

        async def work(x):
            nonlocal active, peak
            active += 1
            peak = max(peak, active)
            await double(x)
            active -= 1
            return x

        out = aio.map(work, ticking(range(20), pulled), limit=limit, ordered=ordered)
        n = 0
        async for _ in out:
            n += 1
            assert len(pulled) <= n - 1 + limit
        assert peak <= limit

    run(main())


def test_map_hands_out_what_is_ready_while_the_source_waits():
    async def main():
        never = asyncio.Event()

        async def source():
            yield 1
            await never.wait()

        async with aclosing(aio.map(double, source())) as out:
            assert await asyncio.wait_for(anext(out), 5) == 2

    run(main())


def test_errors_come_at_their_position_and_end_everything():
    async def fail(x):
        await asyncio.sleep(0)
        if x == 2:
            raise KeyError(x)
        return x

    async def bad_source():
        yield 0
        yield 1
        raise OSError("gone")

    async def main():
        closed = []
        got = []
        with pytest.raises(KeyError):
            async for x in aio.map(fail, ticking(itertools.count(), closed=closed), limit=4):
                got.append(x)
        assert got == [0, 1]
        assert closed == [True]
        for make in (
            lambda: aio.map(double, bad_source()),
            lambda: aio.merge(bad_source(), ticking(itertools.count())),
            lambda: aio.prefetch(bad_source()),
            lambda: aio.zip_longest(bad_source(), ticking(itertools.count())),
            lambda: aio.interleave(bad_source(), ticking(itertools.count())),
        ):
            with pytest.raises(OSError, match="gone"):
                await collect(make())

    run(main())


def test_closing_early_closes_the_whole_pipe():
    async def main():
        closed = []
        make = [
            lambda s: aio.merge(s, ticking(itertools.count(), closed=closed)),
            lambda s: aio.prefetch(s),
            lambda s: aio.map(double, s),
            lambda s: aio.zip_longest(s, "ab"),
            lambda s: aio.interleave(s),
            lambda s: aio.rate(s, 1e9),
            lambda s: aio.pipe(s, aio.prefetch, lambda p: aio.map(double, p)),
        ]
        for i, combinator in enumerate(make):
            async with aclosing(combinator(ticking(itertools.count(), closed=closed))) as out:
                await anext(out)
            assert len(closed) == i + 2, i

    run(main())


def test_cancelling_the_consumer_ends_the_tasks():
    async def main():
        async def consume():
            async for _ in aio.map(lambda x: asyncio.sleep(60), range(5)):
                pass

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(), max_size=12), st.integers(1, 4), st.integers(1, 3))
def test_branches_of_a_tee_give_every_item_and_wait_for_the_slowest(items, lag, n):
    async def main():
        pulled = []
        ahead = 0

        async def consume(branch, pace):
            got = []
            async for item in branch:
                got.append(item)
                progress[pace] = len(got)
                nonlocal ahead
                ahead = max(ahead, len(pulled) - min(progress))
                for _ in range(pace):
                    await asyncio.sleep(0)
            return got

        progress = [0] * n
        branches = aio.tee(ticking(items, pulled), n, lag=lag)
        got = await asyncio.gather(*(consume(b, i) for i, b in enumerate(branches)))
        assert got == [items] * n
        assert ahead <= lag + 1

    run(main())


def test_a_closed_branch_holds_nothing_back_and_the_last_closes_the_source():
    async def main():
        closed = []
        fast, slow = aio.tee(ticking(range(20), closed=closed), lag=2)
        assert await anext(slow) == 0
        await slow.aclose()
        assert await collect(fast) == list(range(20))
        assert closed == [True]

    run(main())


def test_rate_waits_with_the_given_clock():
    async def main():
        now, slept = [0.0], []

        async def sleep(seconds):
            slept.append(seconds)
            now[0] += seconds

        await collect(aio.rate(range(11), 10, clock=lambda: now[0], sleep=sleep))
        assert sum(slept) == pytest.approx(1.0)

    run(main())


def test_bounds_below_one_are_refused():
    async def main():
        for make in (
            lambda: aio.merge([], n=0),
            lambda: aio.prefetch([], 0),
            lambda: aio.map(double, [], limit=0),
            lambda: aio.interleave([], size=0),
        ):
            with pytest.raises(ArgumentError):
                await collect(make())
        with pytest.raises(ArgumentError):
            aio.tee([], lag=0)

    run(main())
