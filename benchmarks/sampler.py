"""
What sampling costs a service that has nothing else to do: CPU time per second, beside a bare server.

Bare and measured servers are processes of their own and idle side by side, several of each, for the
same seconds. Printed is the median of the CPU that each used, by the process's own clock, as a share
of one core. Then each measured one, now with tasks that wait, has turns of all its sources, and each
turn begins to count the tasks anew: printed is the CPU time for which a turn, and what follows of the
count, hold the event loop. Last comes the cost of a note about the garbage collector.

    python benchmarks/sampler.py [--seconds 20] [--pairs 3] [--queues 100] [--sources 20] [--tasks 10000]
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time

TURNS = 300


async def serve(kind, queues, sources, tasks):
    """Idle until stdin ends, printing the CPU nanoseconds used for each line; then measure turns."""
    from aiohttp import web

    app = web.Application()
    kept = []
    if kind == "measured":
        import aiosvc

        observer = aiosvc.setup(app)
        kept.extend(
            observer.watch_queue(asyncio.Queue(10), name=f"queue{i}") for i in range(queues)
        )
        for i in range(sources):
            observer.sampler.add(f"number_{i}", lambda: 1.0, on_loop=True)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(time.process_time_ns(), flush=True)
    if kind == "measured":
        print(json.dumps(await turns_of(observer, tasks)), flush=True)
    await runner.cleanup()


async def turns_of(observer, tasks):
    """Return CPU seconds on the event loop: of turns, of longest slices and of whole counts."""
    from aiosvc.sources import tasks as module

    module.PER_SECOND = float("inf")  # each turn counts anew
    waiting = [asyncio.create_task(asyncio.Event().wait()) for _ in range(tasks)]
    await asyncio.sleep(0.1)
    turns, slices, counts = [], [], []
    go_on = module.TaskSource._go_on

    def timed(*arguments):
        begun = time.thread_time()
        go_on(*arguments)
        slices.append(time.thread_time() - begun)

    module.TaskSource._go_on = timed
    for _ in range(TURNS):
        slices.clear()
        begun = time.thread_time()
        observer.sampler.refresh()
        turns.append(time.thread_time() - begun)
        for _ in range(2 + tasks // module.BATCH):
            await asyncio.sleep(0)
        counts.append((max(slices, default=0.0), sum(slices)))
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return {
        "turns": turns,
        "slices": [longest for longest, _ in counts],
        "counts": [whole for _, whole in counts],
    }


def note_cost():
    """Return the CPU seconds of a note about one collection, start and stop."""
    from aiosvc.sources.pauses import Pauses

    pauses, times = Pauses(), []
    info = {"generation": 0, "collected": 0, "uncollectable": 0}
    for _ in range(50):
        begun = time.thread_time()
        for _ in range(1000):
            pauses.note("start", info)
            pauses.note("stop", info)
        times.append((time.thread_time() - begun) / 1000)
    return statistics.median(times)


def shown(name, values):
    """Print the median and the 99th percentile of seconds."""
    percentile = statistics.quantiles(values, n=100)[98]
    print(
        f"{name:46} median {statistics.median(values) * 1e3:.3f} ms, p99 {percentile * 1e3:.3f} ms"
    )


def main():
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--queues", type=int, default=100)
    parser.add_argument("--sources", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=10_000)
    arguments = parser.parse_args()
    numbers = [arguments.queues, arguments.sources, arguments.tasks]
    if arguments.serve:
        asyncio.run(serve(arguments.serve, *numbers))
        return
    flags = zip(("--queues", "--sources", "--tasks"), map(str, numbers), strict=True)
    kinds = ["bare", "measured"] * arguments.pairs
    command = [sys.executable, __file__, *(text for flag in flags for text in flag), "--serve"]
    processes = [
        subprocess.Popen([*command, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for kind in kinds
    ]

    def cpu(process):
        process.stdin.write("\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    for process in processes:
        cpu(process)
    time.sleep(2)
    before = [cpu(process) for process in processes]
    time.sleep(arguments.seconds)
    used = [cpu(process) - was for process, was in zip(processes, before, strict=True)]
    shares = {"bare": [], "measured": []}
    for kind, nanoseconds in zip(kinds, used, strict=True):
        shares[kind].append(nanoseconds / 1e9 / arguments.seconds)
    print(f"{arguments.queues} queues, {arguments.sources} sources")
    for kind, values in shares.items():
        print(f"{kind:9} {statistics.median(values):.3%} of a core, idle")
    found = {"turns": [], "slices": [], "counts": []}
    for kind, process in zip(kinds, processes, strict=True):
        process.stdin.close()
        if kind == "measured":
            for name, values in json.loads(process.stdout.readline()).items():
                found[name] += values
        process.wait(30)
    print(f"and {arguments.tasks} tasks")
    shown("one turn of all sources holds the loop for", found["turns"])
    shown("the longest slice of a count of tasks", found["slices"])
    shown("a whole count of tasks, all slices", found["counts"])
    print(f"one note about the garbage collector: {note_cost() * 1e6:.2f} µs")


if __name__ == "__main__":
    main()
