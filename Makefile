# The usual ways to use this repository. `make test` is what continuous integration runs.
#
#   make demo      build, install under build/, and run the demo
#   make demo ENGINES=dask,ray   the same, with rows for clusters of these engines on this machine
#   make test      everything that must pass
#   make bench     measure against other runtimes, write benches/results (about 6 minutes, on a machine at rest)
#   make bench-processes   its last part: worker processes against Python's fork pool, loky, joblib and R's mclapply (a minute)
#   make bench-engines     maps on Dask, Ray and MPI, against clients of these written by hand (8 minutes)
#   make check     formats, lints, and that the header, symbols and versions agree
#   make install   PREFIX=/usr/local (DESTDIR is respected)
#   make header    generate include/parallel_backend.h after a change in src/ffi
#   make format    format Rust, C and C++
#   make clean

PREFIX ?= /usr/local
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR

# What the tests and the demo use: an installed tree, as others have it.
prefix = $(CURDIR)/build/prefix
c_files = $(shell git ls-files '*.c' '*.cpp' '*.h' '*.hpp' ':!include/parallel_backend.h')
stage = @printf '\n== %s\n'

# Stages follow one another, whatever -j says: they share build trees and two of them measure time.
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.PHONY: demo test bench bench-processes bench-engines check install header format clean setup-demo setup-test setup-bench setup-engines build local-install \
        test-rust test-plugins test-mpi test-c test-consumers test-valgrind test-examples test-forks test-engines test-bench

comma = ,
engines = $(subst $(comma), ,$(ENGINES))
# Dask and Ray start a cluster of their own on this machine. MPI has no such thing: there the demo is started by mpirun.
demo_clusters = $(foreach engine,$(filter dask ray,$(engines)),--cluster "$(engine):address=local") \
                $(foreach engine,$(filter mpi,$(engines)),--cluster $(engine))
on_mpi = $(filter mpi,$(engines))
mpirun = env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
         mpirun.openmpi --bind-to none

demo: setup-demo $(if $(engines),setup-engines) local-install
	$(stage) "demo"
	cmake -S examples/demo -B build/demo -DCMAKE_PREFIX_PATH=$(prefix) >build/demo.log || { cat build/demo.log; exit 1; }
	cmake --build build/demo >>build/demo.log || { cat build/demo.log; exit 1; }
	$(if $(engines),PB_PYTHON=$(CURDIR)/.venv/bin/python) $(if $(on_mpi),$(mpirun) -n 1) build/demo/pb-demo \
		--plugin $(prefix)/lib/parallel_backend/libpb_backend_openmp.so $(demo_clusters) \
		$(if $(on_mpi),: -n $(shell nproc) $(prefix)/bin/pb-mpi-worker)

test: setup-test check test-rust test-plugins test-mpi test-c test-consumers test-valgrind test-examples test-forks test-engines test-bench
	$(stage) "all passed"

setup-demo:
	$(stage) "set-up for the demo"
	scripts/setup demo

setup-test:
	$(stage) "set-up for the tests"
	scripts/setup test

setup-engines:
	$(stage) "set-up of Dask and Ray"
	scripts/setup engines

setup-bench:
	$(stage) "set-up for the benchmark"
	scripts/setup bench

build:
	$(stage) "build"
	cmake -S . -B build/cmake -DPB_CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)
	cmake --build build/cmake

local-install: build
	cmake --install build/cmake --prefix $(prefix) >build/install.log

install: build
	cmake --install build/cmake --prefix $(PREFIX)

check: local-install
	$(stage) "check"
	cargo fmt --check
	clang-format --dry-run -Werror $(c_files)
	cargo clippy --locked --all-targets -- -D warnings
	scripts/header --check
	scripts/check-symbols $(prefix)/lib/libparallel_backend.so
	scripts/check-version $(prefix)
	scripts/check-native-libs $(prefix)

test-rust:
	$(stage) "Rust tests"
	cargo test --locked
	$(stage) "protocols between threads, model-checked by loom"
	RUSTFLAGS="--cfg loom" cargo test --locked --release --target-dir $(CARGO_TARGET_DIR)/loom --lib loom_

test-plugins: build
	$(stage) "tests of the plugins"
	ctest --test-dir build/cmake --output-on-failure --label-exclude '^mpi_'

build/c-tests: local-install
	cmake -S c-tests -B $@ -DCMAKE_PREFIX_PATH=$(prefix) -DPB_VALGRIND=ON
	cmake --build $@ -j2
.PHONY: build/c-tests

# Of both MPIs: where one has not been found the label has no tests, and that is an error.
test-mpi: build
	$(stage) "backend mpi on ranks of Open MPI and MPICH"
	ctest --test-dir build/cmake --output-on-failure --no-tests=error --label-regex '^mpi_openmpi$$'
	ctest --test-dir build/cmake --output-on-failure --no-tests=error --label-regex '^mpi_mpich$$'

test-c: build/c-tests
	$(stage) "C and C++ tests, shared and static"
	ctest --test-dir build/c-tests --output-on-failure --no-tests=error --label-exclude valgrind

test-valgrind: build/c-tests
	$(stage) "C and C++ tests under valgrind"
	ctest --test-dir build/c-tests --output-on-failure --no-tests=error --label-regex valgrind -j2

test-consumers: build
	$(stage) "projects that use the package"
	scripts/test-consumers build/cmake

test-examples: local-install
	$(stage) "examples"
	scripts/test-examples $(prefix)

test-forks: local-install
	$(stage) "processes that Python and R fork"
	tests/fork/test $(prefix)

test-engines: local-install
	$(stage) "maps on clusters of Dask and Ray"
	tests/engines/test $(prefix)

test-bench:
	$(stage) "how the benchmark reports"
	cd benches && python3 -B -m unittest

# What to measure: make bench BENCH="--only saxpy,onetbb --threads 4"
bench: setup-bench build/benches
	$(stage) "benchmark"
	.venv/bin/python -B benches/run $(BENCH)
	$(if $(BENCH),,$(MAKE) bench-processes)

bench-processes: setup-bench local-install
	$(stage) "worker processes"
	.venv/bin/python -B benches/processes/run

bench-engines: setup-engines local-install
	$(stage) "clusters of Dask, Ray and MPI"
	.venv/bin/python -B benches/engines/run

build/benches: local-install
	cmake -S benches -B $@ -DCMAKE_PREFIX_PATH=$(prefix) >build/benches.log || { cat build/benches.log; exit 1; }
	cmake --build $@ -j2 >>build/benches.log || { cat build/benches.log; exit 1; }
.PHONY: build/benches

header:
	scripts/header
	scripts/check-symbols --update

format:
	cargo fmt
	clang-format -i $(c_files)

clean:
	rm -rf build
	cargo clean
