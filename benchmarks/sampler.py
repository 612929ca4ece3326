"""
What sampling costs a service that has nothing else to do: CPU time per second, beside a bare server.

Bare and measured servers are processes of their own and idle side by side, several of each, for the
same seconds. Printed is the median of the CPU that each used, by the process's own clock, as a share
of one core; and what one turn of all default sources takes on the event loop.

    python benchmarks/sampler.py [--seconds 20] [--pairs 3] [--queues 100] [--sources 20]
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time


async def serve(kind, queues, sources):
    """Idle until stdin ends; print the CPU nanoseconds used so far for each line."""
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
        turns = []
        for _ in range(200):
            begun = time.perf_counter()
            observer.sampler.refresh()
            turns.append(time.perf_counter() - begun)
        print(statistics.median(turns), flush=True)
    await runner.cleanup()


def main():
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--queues", type=int, default=0)
    parser.add_argument("--sources", type=int, default=0)
    arguments = parser.parse_args()
    numbers = ["--queues", str(arguments.queues), "--sources", str(arguments.sources)]
    if arguments.serve:
        asyncio.run(serve(arguments.serve, arguments.queues, arguments.sources))
        return
    kinds = ["bare", "measured"] * arguments.pairs
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--serve", kind, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
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
    for kind, values in shares.items():
        print(f"{kind:9} {statistics.median(values):.3%} of a core, idle")
    turns = []
    for kind, process in zip(kinds, processes, strict=True):
        process.stdin.close()
        if kind == "measured":
            turns.append(float(process.stdout.readline()))
        process.wait(10)
    print(f"one turn of all sources on the loop: {statistics.median(turns) * 1000:.3f} ms")


if __name__ == "__main__":
    main()
