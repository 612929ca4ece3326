"""
Which probe of an event loop sees stalls, how exactly, and what each costs: ours beside usual ticks.

All probes watch the same loop in the same run, while it is blocked at random moments for 200 ms at
a time; a stall is seen where something was late by more than 100 ms. Then each probe has an idle
loop of its own, a process each, side by side, for the CPU time that it takes to do nothing. Last is
what ours costs per turn of the loop: chunks with and without it in turn, the median of the paired
differences of CPU time.

    python benchmarks/loop_probes.py [--seconds 40] [--stalls 29] [--idle 20] [--turns 20000]
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import time

BLOCK = 0.2
LATE = 0.1
TICKS = {"tick of 5 s": 5.0, "tick of 1 s": 1.0, "tick of 250 ms": 0.25, "tick of 100 ms": 0.1}
OURS = ("heartbeat of 50 ms (ours)", "selector (ours)")


async def tick(interval, observe):
    """Observe how late each return of a sleep is."""
    while True:
        due = time.perf_counter() + interval
        await asyncio.sleep(interval)
        observe(time.perf_counter() - due, due)


def raise_it(error):
    """Have nothing fail unseen."""
    raise error


def our_probe(name, observe):
    """Return one of our probes, for the running loop."""
    from aiosvc.eventloop.heartbeat import HeartbeatProbe
    from aiosvc.eventloop.selector import SelectorProbe

    kind = SelectorProbe if name.startswith("selector") else HeartbeatProbe
    return kind(asyncio.get_running_loop(), observe, raise_it)


async def score(seconds, stalls):
    """Block the loop at random moments; print what each probe saw of it."""
    seen = {name: [] for name in (*TICKS, *OURS)}

    def note(name):
        return lambda late, since, _idle=0: late > LATE and seen[name].append((since, late))

    tasks = [asyncio.create_task(tick(TICKS[name], note(name))) for name in TICKS]
    probes = [our_probe(name, note(name)) for name in OURS]
    for probe in probes:
        probe.start()
    begun = time.perf_counter()
    blocks = []
    pace = seconds / stalls
    for number in range(stalls):
        at = begun + pace * number + random.random() * (pace - BLOCK - 0.1)
        await asyncio.sleep(at - time.perf_counter())
        first = time.perf_counter()
        while time.perf_counter() - first < BLOCK:
            pass
        blocks.append((first, time.perf_counter()))
    await asyncio.sleep(0.2)
    for probe in probes:
        probe.stop()
    for task in tasks:
        task.cancel()
    print_score(seen, blocks, seconds)


def print_score(seen, blocks, seconds):
    """Print how many of the blocks each probe saw, and how exactly."""
    print(f"{len(blocks)} stalls of {BLOCK * 1000:.0f} ms in {seconds:g} s")
    for name, late in seen.items():
        errors = []
        for first, last in blocks:
            lengths = [
                length for since, length in late if first - 0.001 <= since + length / 2 < last
            ]
            if lengths:
                errors.append(abs(max(lengths) - (last - first)))
        print(
            f"  {name:26} {len(errors):3} of {len(blocks)} seen, {len(late) - len(errors)} others",
            end="",
        )
        if errors:
            usual, most = statistics.median(errors) * 1000, max(errors) * 1000
            print(f"; length wrong by {usual:6.2f} ms (median), {most:6.2f} ms (most)", end="")
        print()


async def idle(name):
    """Idle until stdin ends; print the CPU nanoseconds used so far for each line."""
    from aiosvc.eventloop import LoopWatch

    loop = asyncio.get_running_loop()
    if name in TICKS:
        task = asyncio.create_task(tick(TICKS[name], lambda _late, _since: None))
    elif name in OURS:
        from prometheus_client import CollectorRegistry

        from aiosvc.collector import collector_of

        kind = "auto" if name.startswith("selector") else "heartbeat"
        collector = collector_of(CollectorRegistry())
        LoopWatch(collector, kind=kind, stall_threshold=LATE).start()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(time.process_time_ns(), flush=True)
    if name in TICKS:
        task.cancel()


def idle_cost(seconds):
    """Print the CPU time that an idle loop takes with each probe."""
    names = ["none", *TICKS, *OURS]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]

    def cpu(process):
        process.stdin.write("\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    for process in processes:
        cpu(process)
    time.sleep(1)
    before = [cpu(process) for process in processes]
    time.sleep(seconds)
    used = [cpu(process) - was for process, was in zip(processes, before, strict=True)]
    print(f"CPU of a loop that idles, in {seconds:g} s")
    for name, nanoseconds in zip(names, used, strict=True):
        print(f"  {name:26} {nanoseconds / 1e9 / seconds:.3%} of a core")
    for process in processes:
        process.stdin.close()
        process.wait(10)


async def polling(turns):
    """Take so many turns with something ready in each."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def waiting(turns):
    """Take so many turns that wait for a descriptor, which is ready at once."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = turns
    readable, writable = os.pipe()
    os.write(writable, b"x")

    def ready():
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    loop.add_reader(readable, ready)
    await done
    loop.remove_reader(readable)
    os.close(readable)
    os.close(writable)


async def turn_cost(turns, chunks=30):
    """Print what our probe adds to a turn of the loop."""
    from prometheus_client import CollectorRegistry

    from aiosvc.collector import collector_of
    from aiosvc.eventloop import LoopWatch

    print(f"CPU per turn of the loop, median of {chunks} pairs of {turns} turns")
    for take in (polling, waiting):
        bare, more = [], []
        for _ in range(chunks):
            times = []
            for watched in (False, True):
                watch = LoopWatch(
                    collector_of(CollectorRegistry()), kind="auto", stall_threshold=LATE
                )
                if watched:
                    watch.start()
                await asyncio.sleep(0.001)
                begun = time.thread_time()
                await take(turns)
                times.append((time.thread_time() - begun) / turns * 1e6)
                watch.stop()
            bare.append(times[0])
            more.append(times[1] - times[0])
        print(
            f"  {take.__name__:8} {statistics.median(bare):6.2f} us bare, "
            f"{statistics.median(more):+.2f} us with the selector probe and its watchdog"
        )


def main():
    """Run all three and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--stalls", type=int, default=29)
    parser.add_argument("--idle", type=float, default=20)
    parser.add_argument("--turns", type=int, default=20_000)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(idle(arguments.serve))
        return
    asyncio.run(score(arguments.seconds, arguments.stalls))
    idle_cost(arguments.idle)
    asyncio.run(turn_cost(arguments.turns))


if __name__ == "__main__":
    main()
