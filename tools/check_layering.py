#!/usr/bin/env python3
"""Checks that includes and CMake links go downward only, and that the engine (src/vm) includes no OS header.

The order is DESIGN.md's: base < vm < swap, pager, pmap < machine < validate, observe < runtime, lab < view, cli.
Two folders of the same rank may not include each other. Usage: check_layering.py [ROOT] (default: this repository).
"""
import pathlib
import re
import sys

RANK = {"base": 0, "vm": 1, "swap": 2, "pager": 2, "pmap": 2, "machine": 3, "validate": 4, "observe": 4,
        "runtime": 5, "lab": 5, "view": 6, "cli": 6}
# What the engine may not see: the operating system and its threads. Clock, Executor, Pmap, Pager stand between.
OS_HEADER = re.compile(
    r"(unistd|pthread|fcntl|signal|sched|dlfcn|semaphore|poll|ucontext|execinfo|spawn|termios|dirent|malloc)\.h$"
    r"|(sys|linux|asm|asm-generic|bits|arpa|netinet|net)/|immintrin\.h$|x86intrin\.h$"
    r"|(thread|mutex|shared_mutex|condition_variable|future|csignal|filesystem|fstream|iostream|semaphore)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
MODULE = re.compile(r"enchilada_module\(\s*([\w/]+)([^)]*)\)", re.S)


def folder_of(path):
    """The name that is ranked, and the folder itself: pmap/soft and pmap/host are two folders of rank 'pmap'."""
    parts = path.parts
    folder = "/".join(parts[:2]) if parts[0] == "pmap" and len(parts) > 2 else parts[0]
    return parts[0], folder


def check_file(src, path, errors):
    top, folder = folder_of(path.relative_to(src))
    where = f"src/{path.relative_to(src)}"
    if top not in RANK:
        errors.append(f"{where}: folder src/{top} has no rank; add it to tools/check_layering.py and docs")
        return
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        kind, name = match.groups()
        if kind == "<":
            if top == "vm" and OS_HEADER.match(name):
                errors.append(f"{where}:{number}: the engine includes no OS header, but here is <{name}>")
            continue
        if name.startswith("enchilada/") and (src.parent / "include" / name).exists():
            continue
        target = src / name
        if not target.exists():
            errors.append(f'{where}:{number}: "{name}" is not a path under src/')
            continue
        other_top, other_folder = folder_of(pathlib.Path(name))
        if other_folder != folder and RANK.get(other_top, 99) >= RANK[top]:
            errors.append(f"{where}:{number}: {folder} may not include {other_folder} (downward only)")


def check_links(root, errors):
    for listing in sorted(root.glob("src/**/CMakeLists.txt")):
        for name, rest in MODULE.findall(re.sub(r"#.*", "", listing.read_text())):
            top = name.split("/")[0]
            deps = re.search(r"\bDEPS\b(.*?)(\b(?:LIBS|EXCEPTIONS)\b|$)", rest, re.S)
            for dep in deps.group(1).split() if deps else []:
                other = dep.split("_")[0]
                inner = dep.startswith(name.replace("/", "_") + "_")  # a folder below its own
                if not inner and RANK.get(other, 99) >= RANK.get(top, -1):
                    errors.append(f"{listing.relative_to(root)}: {name} may not link {dep} (downward only)")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    root = root if root.is_dir() else root.parent.parent
    src = root / "src"
    errors = []
    for path in sorted(p for suffix in ("*.h", "*.cc", "*.c", "*.S") for p in src.rglob(suffix)):
        check_file(src, path, errors)
    for path in sorted((root / "include").rglob("*.h")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if match and match.group(1) == '"' and not match.group(2).startswith("enchilada/"):
                errors.append(f"{path.relative_to(root)}:{number}: the public API includes only enchilada/ headers")
    check_links(root, errors)
    for error in errors:
        print(error)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
