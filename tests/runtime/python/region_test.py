#!/usr/bin/env python3
"""The Python module, with NumPy: arrays larger than RAM, forks, snapshots, rollbacks, files, and what is refused.

Usage: PYTHONPATH=<build>/python region_test.py. Status 77: NumPy is missing.
"""
import errno
import gc
import io
import os
import sys
import tempfile
import threading
import unittest

try:
    import numpy as np
except ImportError:
    print("skipped: NumPy is missing")
    sys.exit(77)
import enchilada

MIB = 1 << 20
PAGE = 4096


class RegionTest(unittest.TestCase):
    def setUp(self):
        self.vm = enchilada.Vm(ram=4 * MIB)

    def test_an_array_eight_times_as_large_as_ram_keeps_its_contents(self):
        array = self.vm.map(32 * MIB).array(dtype=np.uint64)
        array[:] = np.arange(len(array), dtype=np.uint64)
        array *= 3
        self.assertEqual(int(array.sum()), 3 * len(array) * (len(array) - 1) // 2)
        self.assertLessEqual(self.vm.statistics()["resident_bytes"], 4 * MIB)
        self.assertGreater(self.vm.statistics()["swap_used_bytes"], 0)

    def test_numpy_sorts_an_array_that_does_not_fit_into_ram(self):
        array = self.vm.map(8 * MIB).array(dtype=np.uint32)
        array[:] = np.random.default_rng(1).integers(0, 1 << 32, len(array), dtype=np.uint32)
        expected = np.sort(np.array(array))
        array.sort()
        self.assertTrue(np.array_equal(array, expected))

    def test_a_fork_and_its_origin_do_not_see_each_others_writes(self):
        region = self.vm.map(MIB)
        array = region.array((256, 512), np.float64)
        array[:] = 1.5
        twin = region.fork().array((256, 512), np.float64)
        array[3] = 2
        twin[4] = 3
        self.assertEqual((array[3, 0], array[4, 0], twin[3, 0], twin[4, 0]), (2, 1.5, 1.5, 3))

    def test_a_rollback_shows_in_arrays_that_exist(self):
        region = self.vm.map(16 * MIB)
        array = region.array(dtype=np.int32)
        array[:] = 7
        mark = region.snapshot()
        array[::1000] = 8
        region.rollback(mark)
        self.assertTrue((array == 7).all())
        self.assertEqual(region.diff(mark), [])

    def test_a_diff_names_the_pages_written(self):
        region = self.vm.map(64 * PAGE)
        array = region.array()
        array[:] = 1
        mark = region.snapshot()
        array[5 * PAGE] = 2
        array[6 * PAGE + 9] = 2
        array[50 * PAGE] = 2
        self.assertEqual(region.diff(mark), [(5 * PAGE, 2 * PAGE), (50 * PAGE, PAGE)])

    def test_branches_of_a_snapshot_are_independent(self):
        region = self.vm.map(MIB)
        region.array()[:] = 1
        mark = region.snapshot()
        region.array()[:] = 2
        one, two = mark.branch(), mark.branch()
        one.array()[0] = 9
        self.assertEqual((len(mark), one.array()[0], two.array()[0], region.array()[0]), (MIB, 9, 1, 2))

    def test_an_array_keeps_its_region_alive(self):
        array = self.vm.map(MIB).array()
        self.vm = None
        gc.collect()
        array[:] = 3
        self.assertEqual(int(array.sum()), 3 * MIB)

    def test_threads_fault_while_others_compute_snapshot_and_roll_back(self):
        regions = [self.vm.map(4 * MIB) for _ in range(3)]
        wrong = []

        def work(region, seed):
            array = region.array(dtype=np.uint64)
            array[:] = seed
            for turn in range(4):
                mark = region.snapshot()
                array += np.uint64(turn)
                region.rollback(mark)
            if int(array.sum()) != seed * len(array):
                wrong.append(seed)

        threads = [threading.Thread(target=work, args=(region, seed)) for seed, region in enumerate(regions, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_read_from_and_write_to_carry_files_of_any_kind(self):
        region = self.vm.map(8 * MIB)
        data = np.random.default_rng(2).bytes(8 * MIB)
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            self.assertEqual(region.read_from(file), 8 * MIB)
        copy = io.BytesIO()
        self.assertEqual(region.write_to(copy, offset=10, size=5 * MIB), 5 * MIB)
        self.assertEqual(copy.getvalue(), data[10:10 + 5 * MIB])
        self.assertEqual(region.read_from(io.BytesIO(b"end"), offset=8 * MIB - 3), 3)
        self.assertEqual(bytes(region.array()[-4:]), data[-4:-3] + b"end")

    def test_a_system_call_on_absent_memory_fails_and_on_pinned_memory_works(self):
        region = self.vm.map(MIB)
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(b"x" * MIB)
            file.seek(0)
            with self.assertRaises(OSError) as caught:
                file.readinto(memoryview(region))
            self.assertEqual(caught.exception.errno, errno.EFAULT)
            file.seek(0)
            with region.pinned():
                self.assertEqual(file.readinto(memoryview(region)), MIB)
        self.assertTrue((region.array() == ord("x")).all())

    def test_pinned_memory_is_not_snapshot_and_is_again_afterwards(self):
        region = self.vm.map(MIB)
        with region.pinned(0, PAGE):
            with self.assertRaisesRegex(BufferError, "unpin"):
                region.snapshot()
        region.snapshot()

    def test_memory_in_use_is_not_cut_off(self):
        region = self.vm.map(MIB, capacity=2 * MIB)
        small = region.snapshot()
        region.resize(2 * MIB)
        array = region.array()
        for shrink in (lambda: region.resize(MIB), lambda: region.rollback(small)):
            with self.assertRaises(BufferError):
                shrink()
        del array
        gc.collect()
        region.rollback(small)
        self.assertEqual(len(region), MIB)

    def test_discarded_memory_is_zero(self):
        region = self.vm.map(MIB)
        region.array()[:] = 1
        region.advise(enchilada.Advice.SEQUENTIAL)
        region.discard(PAGE, PAGE)
        self.assertEqual(int(region.array().sum()), MIB - PAGE)
        self.assertEqual(region.statistics()["bytes"], MIB)

    def test_what_makes_no_sense_is_refused_with_a_reason(self):
        region = self.vm.map(MIB)
        other = self.vm.map(MIB)
        cases = [
            (ValueError, "ram_bytes", lambda: enchilada.Vm(ram=1)),
            (ValueError, "between", lambda: self.vm.map(0)),
            (ValueError, "not inside", lambda: region.advise(enchilada.Advice.RANDOM, MIB, 1)),
            (ValueError, "page size", lambda: region.discard(1, 2)),
            (ValueError, "another region", lambda: region.rollback(other.snapshot())),
            (ValueError, "another region", lambda: region.diff(other.snapshot())),
            (ValueError, "capacity", lambda: region.resize(2 * MIB)),
            (ValueError, "not inside", lambda: region.read_from(io.BytesIO(), 0, 2 * MIB)),
            (TypeError, "", lambda: self.vm.map("much")),
            (ValueError, "", lambda: enchilada.Vm(settings=["nonsense=1"])),
        ]
        for kind, words, call in cases:
            with self.assertRaisesRegex(kind, words):
                call()


if __name__ == "__main__":
    os.environ.setdefault("ENCHILADA_SWAP_DIR", "/var/tmp")
    unittest.main()
