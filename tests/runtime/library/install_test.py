#!/usr/bin/env python3
"""Installs the library into a folder of its own, builds the project in examples/outside against it as a user would (CMake
package, pkg-config), and runs it. Usage: install_test.py BUILD_FOLDER SOURCE_FOLDER"""
import os
import pathlib
import subprocess
import sys
import tempfile


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def expect(what, text):
    if what not in text:
        sys.exit(f"expected {what!r} in:\n{text}")


def main():
    build, source = map(pathlib.Path, sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="enchilada-install-") as folder:
        root = pathlib.Path(folder)
        prefix = root / "prefix"
        # The prefix as it will be, below a folder for now, as packagers do: nothing may remember either.
        run("cmake", "--install", build, "--prefix", "/opt/enchilada", env={**os.environ, "DESTDIR": str(root / "staged")})
        (root / "staged" / "opt" / "enchilada").rename(prefix)
        run("cmake", "-S", source / "examples" / "outside", "-B", root / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
        run("cmake", "--build", root / "build")
        first = run(root / "build" / "first")
        expect("changed: ", first)
        expect("wrong after rollback: 0\n", first)
        expect("region 1, its fork 2\n", run(root / "build" / "first_c"))

        libraries = next(prefix.glob("lib*/**/libenchilada.so")).parent
        env = {**os.environ, "PKG_CONFIG_PATH": str(libraries / "pkgconfig"), "LD_LIBRARY_PATH": str(libraries)}
        flags = run("pkg-config", "--cflags", "--libs", "enchilada", env=env).split()
        run("cc", source / "examples" / "outside" / "first.c", "-o", root / "by_pkg_config", *flags)
        expect("region 1, its fork 2\n", run(root / "by_pkg_config", env=env))

        readme = (source / "README.md").read_text()
        (root / "readme.cc").write_text(readme.split("```cpp\n")[1].split("```")[0])
        run("c++", "-std=c++20", "-Wall", "-Wextra", "-Werror", root / "readme.cc", "-o", root / "readme", *flags)
        expect("region 0, its fork 1\n", run(root / "readme", env=env))

        for module in prefix.glob("lib/python3*/dist-packages/enchilada*.so"):
            env["PYTHONPATH"], env["LD_LIBRARY_PATH"] = str(module.parent), ""
            words = "import enchilada; r = enchilada.Vm(ram=4 << 20).map(1 << 20); m = memoryview(r); m[5] = 7; print('python', m[5])"
            expect("python 7\n", run("/usr/bin/python3", "-c", words, env=env))

        for page in ("man1/enchilada.1", "man3/libenchilada.3"):
            if not (prefix / "share" / "man" / page).exists():
                sys.exit(f"man page {page} is not installed")
        installed = prefix / "bin" / "enchilada"
        expect("hello", run(installed, "run", "--ram", "32M", "--", "echo", "hello"))
    print("installed, found by CMake and pkg-config, built against, run")


if __name__ == "__main__":
    main()
