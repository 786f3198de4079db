#!/usr/bin/env python3
"""The man pages are well formed and complete: every option of the command, every function of the C header.

Usage: man_test.py ENCHILADA SOURCE_FOLDER
"""
import pathlib
import re
import shutil
import subprocess
import sys


LAB = ["experiment", "merge", "report", "calibrate", "explain"]


def well_formed(page):
    """groff's complaints; nothing where there is no groff."""
    if shutil.which("groff") is None:
        return []
    done = subprocess.run(["groff", "-mandoc", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, check=False)
    # Debian's /usr/share/groff is a subset without some of the macros' own helpers: only complaints about our lines count.
    return [line for line in done.stderr.splitlines() if str(page) in line]


def main():
    command, source = sys.argv[1], pathlib.Path(sys.argv[2])
    pages = {name: source / "docs" / "man" / name for name in ("enchilada.1", "libenchilada.3")}
    wrong = [line for page in pages.values() for line in well_formed(page)]

    text = pages["enchilada.1"].read_text()
    for words in (["--help"], ["run", "--help"], *(["lab", name, "--help"] for name in LAB)):
        help_text = subprocess.run([command, *words], capture_output=True, text=True, check=True).stdout
        for option in sorted(set(re.findall(r"^\s+(?:-\w,)?--([a-z-]+)", help_text, re.M))):
            if f"Fl -{option}" not in text:
                wrong.append(f"enchilada.1 does not have --{option}")

    header = (source / "include" / "enchilada" / "enchilada_c.h").read_text()
    text = pages["libenchilada.3"].read_text()
    functions = set(re.findall(r"\b(enchilada_\w+)\(", header))
    described = set(re.findall(r"^\.Fn (enchilada_\w+)", text, re.M))
    wrong += [f"libenchilada.3 does not have {name}()" for name in sorted(functions - described)]
    wrong += [f"libenchilada.3 has {name}(), which does not exist" for name in sorted(described - functions)]
    if not functions:
        wrong.append("no functions found in enchilada_c.h")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"man pages: {len(functions)} functions, well formed and complete")


if __name__ == "__main__":
    main()
