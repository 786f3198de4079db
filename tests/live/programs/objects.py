"""A Python program with a large dict and list, whose processes share them: subprocess (vfork, exec) and multiprocessing.

Usage: objects.py MEGABYTES. Prints checksums only, so that two runs can be compared.
"""
import multiprocessing
import random
import subprocess
import sys
import zlib

MEGABYTES = int(sys.argv[1])
# A list slot with its int: 8 + 32 bytes. A dict entry with its two strings: about 200 bytes.
numbers = [i * 3 + (1 << 40) for i in range(MEGABYTES * 1_000_000 // 2 // 40)]
words = {f"key {i * 7919}": f"value {i} " + "x" * (i % 50) for i in range(MEGABYTES * 1_000_000 // 2 // 230)}


def slice_sum(bounds):
    low, high = bounds
    own = [n ^ 0x5555 for n in numbers[low:high]]  # new memory in the child, beside what it shares
    return sum(own) + len(words[f"key {low * 7919 % (len(words) * 7919)}"]) if low < len(words) else sum(own)


def main():
    generator = random.Random(1)
    total = 0
    for _ in range(MEGABYTES * 200):
        total += numbers[generator.randrange(len(numbers))]
    print("random reads", total)

    echoed = subprocess.run(["sh", "-c", "cat | tr a-z A-Z | cksum"], input=("hello " * 200_000).encode(),
                            capture_output=True, check=True)
    print("subprocess", echoed.stdout.decode().strip())
    listing = subprocess.run([sys.executable, "-c", "print(sum(len(str(i)) for i in range(100000)))"],
                             capture_output=True, text=True, close_fds=True, env={"PATH": "/usr/bin:/bin"}, check=True)
    print("python in python", listing.stdout.strip())

    context = multiprocessing.get_context("fork")
    step = len(numbers) // 8
    with context.Pool(2) as pool:
        print("multiprocessing", pool.map(slice_sum, [(i * step, i * step + step // 4) for i in range(8)]))

    numbers.sort(reverse=True)
    checksum = 0
    for key in sorted(words)[::7]:
        checksum = zlib.crc32((key + words[key]).encode(), checksum)
    print("sorted", numbers[0], numbers[len(numbers) // 2], sum(numbers), checksum)
    for key in list(words)[::3]:
        del words[key]
    words.update((f"new {i}", str(i) * 3) for i in range(len(words) // 4))
    print("changed", len(words), sum(map(len, words.values())))


if __name__ == "__main__":
    main()
