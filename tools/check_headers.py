#!/usr/bin/env python3
"""Checks that every source file says in a comment at its top what it is, and that a header is guarded.

Also warns (never fails) about files over 800 lines and functions over 60 lines. Usage: check_headers.py [ROOT]
"""
import pathlib
import re
import subprocess
import sys

MAX_FILE, MAX_FUNCTION = 800, 60
COMMENT = {".h": ("//", "/*"), ".cc": ("//", "/*"), ".c": ("//", "/*"), ".S": ("//", "/*", "#"), ".py": ('"""', "#", 'r"""'),
           ".sh": ("#",), ".cmake": ("#",), ".txt": ("#",), "": ("#",)}
NOT_A_FUNCTION = re.compile(r"^(namespace|struct|class|enum|union|extern|#|//|using|typedef|static_assert|\}|\{)")


def tracked(root):
    out = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
    for name in out.stdout.splitlines():
        path = root / name
        is_script = path.suffix == "" and path.is_file() and path.open("rb").read(2) == b"#!"
        if path.is_file() and (path.suffix in (".h", ".cc", ".c", ".S", ".py", ".sh", ".cmake") or is_script
                               or path.name in ("CMakeLists.txt", "Makefile")):
            yield path


def starts_with_comment(path, lines):
    body = [line for line in lines[:3] if not line.startswith("#!")]
    first = next((line.strip() for line in body if line.strip()), "")
    return first.startswith(COMMENT.get(path.suffix, ("#",))) and len(first.strip("/*#\" ")) > 0


def long_functions(lines):
    """Functions of namespace scope in our format: signature from column 0 up to a '{', closing brace in column 0."""
    signature, start = None, None
    for number, line in enumerate(lines, 1):
        if start is None:
            if line and not line[0].isspace():
                signature = None if NOT_A_FUNCTION.match(line) else (number, line)
            if signature and line.endswith("{") and not line.endswith("= {"):
                start = signature
            elif line.endswith((";", "}")):
                signature = None
        elif line.startswith("}"):
            if number - start[0] + 1 > MAX_FUNCTION:
                yield start[0], number - start[0] + 1, start[1]
            signature, start = None, None


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    root = root if root.is_dir() else root.parent.parent
    errors, warnings = [], []
    for path in tracked(root):
        name = path.relative_to(root)
        lines = path.read_text(errors="replace").splitlines()
        if lines and not starts_with_comment(path, lines):
            errors.append(f"{name}:1: a file starts with a comment that says what it is")
        if path.suffix == ".h" and not any(line.startswith("#pragma once") for line in lines):
            errors.append(f"{name}: no #pragma once")
        if len(lines) > MAX_FILE and path.suffix in (".h", ".cc"):
            warnings.append(f"{name}: {len(lines)} lines (goal: at most {MAX_FILE})")
        if path.suffix == ".cc":
            warnings += [f"{name}:{at}: {length} lines (goal: at most {MAX_FUNCTION}): {text[:60]}"
                         for at, length, text in long_functions(lines)]
    for warning in warnings:
        print("warning:", warning)
    for error in errors:
        print(error)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
