# Enchilada: the commands a person types. CMake presets do the work (CMakePresets.json), tools/ has the scripts.
# Each target first installs what is missing (tools/deps.sh: apt, root or sudo, silent when nothing is missing).
JOBS ?= $(shell nproc)
export JOBS

.PHONY: all deps demo test bench check check-fast format clean install docs
PREFIX ?= /usr/local

all: build/release/build.ninja
	@cmake --build --preset release -- -j$(JOBS) $$([ -t 1 ] || echo --quiet)

# Only the first time: from then on ninja runs cmake itself when a list file changes.
build/release/build.ninja: | deps
	@mkdir -p build/release && cmake --preset release >build/release/configure.log 2>&1 || { cat build/release/configure.log; exit 1; }
	@grep '^-- enchilada: ' build/release/configure.log || true

# The command, the preload library, libenchilada and its headers.
install: all
	@cmake --install build/release --prefix $(PREFIX)
	@[ "$$(id -u)" != 0 ] || ldconfig # so that programs find the library at once

# The reference of the public headers, by Doxygen: build/release/docs/html/index.html.
docs: build/release/build.ninja
	@cmake --build --preset release --target docs -- --quiet

# Install what is missing, and nothing else.
deps:
	@tools/deps.sh

# SQLite with more than 600 MB in memory, in 96 MB.
demo: all
	@python3 tools/demo.py

# Everything that CI runs: release, ASan+UBSan, TSan and clang builds with their tests. Ends with 'N passed, N failed'.
test: deps
	@python3 tools/test.py $(TEST_FLAGS)

# Side by side with Linux alone; needs root for the cgroup and swap parts. bench/RESULTS.md explains the figures.
bench: all
	@python3 bench/bench_live.py

# Format, layering, headers, clang-tidy, and a clang build with -Wthread-safety.
check: deps
	@tools/check.sh

# The checks that take seconds.
check-fast: deps
	@tools/check.sh --fast

format:
	@git ls-files '*.h' '*.cc' | xargs clang-format -i

clean:
	rm -rf build bench/out
