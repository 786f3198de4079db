#!/usr/bin/env python3
"""Makes the Debian packages, unpacks them into a folder as apt would into /, and uses what is there: the command, the project
in examples/outside against the development package, the Python module. lintian has to find no error where it is installed.
Usage: packages_test.py BUILD_FOLDER SOURCE_FOLDER. Status 77: this is no Debian."""
import os
import pathlib
import shutil
import sys
import tempfile

from install_test import expect, run

PACKAGES = {"enchilada": ["usr/bin/enchilada", "usr/lib/enchilada/libenchilada-preload.so", "usr/share/man/man1/enchilada.1.gz"],
            "libenchilada0": ["usr/lib*/**/libenchilada.so.0"],
            "libenchilada-dev": ["usr/include/enchilada/enchilada.h", "usr/include/enchilada/enchilada_c.h",
                                 "usr/lib*/**/libenchilada.so", "usr/lib*/**/enchilada.pc", "usr/lib*/**/enchiladaConfig.cmake",
                                 "usr/share/man/man3/libenchilada.3.gz"],
            "python3-enchilada": ["usr/lib/python3/dist-packages/enchilada*.so"]}
# The project has no archive and no address: no bug to close, no symbols file demanded of it; what else is said counts.
TAGS_OF_AN_ARCHIVE = ["initial-upload-closes-no-bugs", "no-symbols-control-file", "bad-distribution-in-changes-file",
                      "bogus-mail-host", "bogus-mail-host-in-debian-changelog"]


def check_lintian(packages):
    if shutil.which("lintian") is None:
        return "lintian is not installed"
    run("lintian", "--allow-root", "--no-cfg", "--fail-on", "error", "--suppress-tags", ",".join(TAGS_OF_AN_ARCHIVE), *packages)
    return "lintian finds no error"


def main():
    build, source = (pathlib.Path(p).resolve() for p in sys.argv[1:3])
    if shutil.which("dpkg-deb") is None or shutil.which("dpkg-shlibdeps") is None:
        print("dpkg is not here: no Debian packages")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="enchilada-packages-") as folder:
        made, root = pathlib.Path(folder) / "made", pathlib.Path(folder) / "root"
        run("cpack", "-G", "DEB", "--config", build / "CPackConfig.cmake", "-B", made)
        packages = sorted(made.glob("*.deb"))
        names = {p.name.split("_")[0] for p in packages}
        if not names <= set(PACKAGES) or len(names) < len(PACKAGES) - 1:  # without pybind11 there is no Python module
            sys.exit(f"packages {sorted(names)}")
        for package in packages:
            run("dpkg-deb", "-x", package, root)
        for name in names:
            documents = [f"usr/share/doc/{name}/copyright", f"usr/share/doc/{name}/changelog.gz"]
            for wanted in PACKAGES[name] + documents:
                if not any(root.glob(wanted)):
                    sys.exit(f"{name}: no {wanted}")
        expect("libenchilada0 (= ", run("dpkg-deb", "-f", next(made.glob("libenchilada-dev_*")), "Depends"))

        command = root / "usr" / "bin" / "enchilada"
        expect("userfaultfd", run(command, "doctor"))
        expect("hello", run(command, "run", "--ram", "32M", "--", "echo", "hello"))
        libraries = next(root.glob("usr/lib*/**/libenchilada.so.0")).parent
        env = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
        run("cmake", "-S", source / "examples" / "outside", "-B", folder + "/build", f"-DCMAKE_PREFIX_PATH={root}/usr")
        run("cmake", "--build", folder + "/build")
        expect("wrong after rollback: 0\n", run(folder + "/build/first", env=env))
        for module in root.glob("usr/lib/python3/dist-packages/enchilada*.so"):
            env["PYTHONPATH"] = str(module.parent)
            words = "import enchilada; print('from', enchilada.__file__); enchilada.Vm(ram=4 << 20).map(1 << 20)"
            expect(f"from {module}", run("/usr/bin/python3", "-c", words, env=env))
        print(f"{len(packages)} packages made, unpacked and used; {check_lintian(packages)}")


if __name__ == "__main__":
    main()
