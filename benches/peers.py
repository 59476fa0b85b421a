"""The peer's side of benches/peers.rs: Python's own process pool, one measurement a line.

Reads `WORK COUNT` on stdin, prints the seconds that took, and goes on to the next line.
"""

import concurrent.futures as cf
import sys
import time


def echo(data):
    return data


def add(a, b):
    return a + b


def round_trip(pool, count):
    data = b"x" * 64
    start = time.perf_counter()
    for _ in range(count):
        pool.submit(echo, data).result()
    return time.perf_counter() - start


def pipelined(pool, count):
    start = time.perf_counter()
    futures = [pool.submit(add, n, 1) for n in range(count)]
    for future in cf.as_completed(futures):
        future.result()
    return time.perf_counter() - start


def map_chunked(pool, count):
    start = time.perf_counter()
    total = sum(pool.map(add, range(count), range(count), chunksize=256))
    seconds = time.perf_counter() - start
    assert total == count * (count - 1)
    return seconds


def echo_16mib(pool, count):
    data = bytes(16 << 20)
    start = time.perf_counter()
    for _ in range(count):
        assert len(pool.submit(echo, data).result()) == len(data)
    return time.perf_counter() - start


WORKS = {
    "round_trip": round_trip,
    "pipelined": pipelined,
    "map": map_chunked,
    "echo_16mib": echo_16mib,
}


def main():
    workers = int(sys.argv[1])
    with cf.ProcessPoolExecutor(workers) as pool:
        list(pool.map(echo, range(workers * 4)))
        print("ready", sys.version.split()[0], flush=True)
        for line in sys.stdin:
            work, count = line.split()
            print(WORKS[work](pool, int(count)), flush=True)


if __name__ == "__main__":
    main()
