"""calculation.py: arithmetic without system calls, with numpy where it is there; prints nanoseconds and which."""

import time

try:
    import numpy
except ImportError:
    numpy = None


def main() -> None:
    """Calculate, print."""
    begin = time.perf_counter()
    if numpy is not None:
        values = numpy.random.default_rng(0).random((240, 240))
        for _ in range(120):
            values = numpy.tanh(values @ values)
    else:
        total = 0
        for number in range(3_000_000):
            total = (total + number * number) % 1_000_003
    print(f"{1e9 * (time.perf_counter() - begin):.1f} {'numpy' if numpy is not None else 'pure Python'}")


main()
