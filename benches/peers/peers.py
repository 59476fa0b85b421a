"""The peers' side of `cargo bench --bench peers`: Python's pools, one measurement a line.

Reads `POOL WORK COUNT` on stdin and answers `ok SECONDS` for each item (of memory, MiB), or
`missing WHY`. `close` ends the pools, whose processes would otherwise stay beside what is measured
next. The pools stay open between two lines, so that only work is timed, no start.
"""

import concurrent.futures as cf
import concurrent.futures.process
import importlib.metadata
import multiprocessing
import os
import signal
import statistics
import sys
import time


def echo(data):
    return data


def add(a, b):
    return a + b


def add_pair(pair):
    return pair[0] + pair[1]


def length(data):
    return len(data)


# What people glue together today: a process pool, and in each process a module that is compiled
# once; each task has a store and an instance of its own.

WASM = None


def compile_once(path):
    global WASM
    import wasmtime

    engine = wasmtime.Engine()
    module = wasmtime.Module.from_file(engine, path)
    linker = wasmtime.Linker(engine)
    linker.define_unknown_imports_as_traps(module)
    WASM = wasmtime, engine, module, linker


def wasm_call(name, data):
    wasmtime, engine, module, linker = WASM
    store = wasmtime.Store(engine)
    exports = linker.instantiate(store, module).exports(store)
    memory = exports["memory"]
    pointer = exports["wasmpool_alloc"](store, len(data))
    memory.write(store, data, pointer)
    packed = exports["wasmpool_task_" + name](store, pointer, len(data)) & (1 << 64) - 1
    start, size = packed >> 32, packed & (1 << 32) - 1
    envelope = memory.read(store, start, start + size)
    if envelope[0] != 0:
        raise RuntimeError(bytes(envelope[1:]))
    return bytes(envelope[1:])


def varint(number):
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


# How each pool is made, asked and ended.


class Executor:
    def __init__(self, workers):
        self.pool = cf.ProcessPoolExecutor(workers)

    def submit(self, function, *args):
        return self.pool.submit(function, *args)

    def pids(self):
        return list(self.pool._processes)

    def close(self):
        self.pool.shutdown()


class Loky(Executor):
    def __init__(self, workers):
        import loky

        self.pool = loky.ProcessPoolExecutor(workers)


class Pebble(Executor):
    def __init__(self, workers):
        import pebble

        self.pool = pebble.ProcessPool(max_workers=workers)

    def submit(self, function, *args):
        return self.pool.schedule(function, args=args)

    def close(self):
        self.pool.close()
        self.pool.join()


class Wasmtime(Executor):
    def __init__(self, workers):
        import wasmtime  # noqa: F401: here to fail, not in a worker

        wasm = os.path.join("guest-tasks", "prebuilt", "echo.wasm")
        self.pool = cf.ProcessPoolExecutor(workers, initializer=compile_once, initargs=(wasm,))

    def submit(self, function, *args):
        data = b"".join(map(varint, args)) if function is add else args[0]
        return self.pool.submit(wasm_call, function.__name__, data)


class Multiprocessing(Executor):
    def __init__(self, workers):
        self.pool = multiprocessing.Pool(workers)

    def submit(self, function, *args):
        future = self.pool.apply_async(function, args)
        future.result = future.get
        return future

    def close(self):
        self.pool.close()
        self.pool.join()


POOLS = {
    "executor": Executor,
    "loky": Loky,
    "pebble": Pebble,
    "wasmtime": Wasmtime,
    "multiprocessing": Multiprocessing,
}


# The works.


def one_at_a_time(pool, count, function, data):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        pool.submit(function, data).result()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def round_trip(pool, count):
    return one_at_a_time(pool, count, echo, b"x" * 64)


def argument_1mib(pool, count):
    return one_at_a_time(pool, count, length, bytes(1 << 20))


def echo_16mib(pool, count):
    return one_at_a_time(pool, count, echo, bytes(16 << 20))


def pipelined(pool, count):
    start = time.perf_counter()
    futures = [pool.submit(add, n, 1) for n in range(count)]
    for future in cf.as_completed(futures):
        future.result()
    return (time.perf_counter() - start) / count


def map_256(pool, count):
    start = time.perf_counter()
    total = sum(pool.pool.map(add, range(count), range(count), chunksize=256))
    seconds = time.perf_counter() - start
    assert total == count * (count - 1)
    return seconds / count


def map_pairs(pool, count, chunksize):
    start = time.perf_counter()
    total = sum(pool.pool.map(add_pair, [(n, n) for n in range(count)], chunksize=chunksize))
    seconds = time.perf_counter() - start
    assert total == count * (count - 1)
    return seconds / count


def map_1(pool, count):
    return map_pairs(pool, count, 1)


def map_default(pool, count):
    return map_pairs(pool, count, None)


def death(_, count):
    """From SIGKILL of a worker to the last future's failure, of so many that wait."""
    with cf.ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(time.sleep, 60) for _ in range(count)]
        pid = next(iter(pool._processes))
        start = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        for future in futures:
            assert isinstance(future.exception(), cf.process.BrokenProcessPool)
        return time.perf_counter() - start


def memory(pool, _):
    """The most private MiB of a worker."""

    def private_kib(pid):
        with open(f"/proc/{pid}/smaps_rollup") as lines:
            return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

    return max(map(private_kib, pool.pids())) / 1024


WORKS = {
    "round_trip": round_trip,
    "argument_1mib": argument_1mib,
    "echo_16mib": echo_16mib,
    "pipelined": pipelined,
    "map_256": map_256,
    "map_1": map_1,
    "map_default": map_default,
    "death": death,
    "memory": memory,
}


def opened(pools, kind, workers):
    if kind not in pools:
        pool = pools[kind] = POOLS[kind](workers)
        # Every process up.
        for future in [pool.submit(echo, b"x" * 64) for _ in range(workers * 32)]:
            future.result()
    return pools[kind]


def version(package):
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def main():
    workers = int(sys.argv[1])
    pools = {}
    print("ready", ", ".join(map(version, ("loky", "pebble", "wasmtime"))), flush=True)
    for line in sys.stdin:
        if line.strip() == "close":
            while pools:
                pools.popitem()[1].close()
            print("ok 0", flush=True)
            continue
        kind, work, count = line.split()
        try:
            seconds = WORKS[work](opened(pools, kind, workers), int(count))
            print("ok", seconds, flush=True)
        except ImportError as error:
            print("missing", error, flush=True)
        except Exception as error:
            print("missing", f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
    for pool in pools.values():
        pool.close()


if __name__ == "__main__":
    main()
