# `make demo` and `make test` do everything themselves, on a fresh Debian 12 with or without a GPU.
.PHONY: help demo test build lint sanitize clean

help:
	@echo 'make demo    build, make the demo model, serve it with many adapters, measure, write out/report.html'
	@echo 'make test    unit and golden tests, fuzz targets, lint'
	@echo 'make sanitize  tests of the engine, adapters and server under the address and thread sanitizers'
	@echo 'make build   only the command, at build/release/braid'
	@echo 'make lint    layers, format, links (part of make test)'
	@echo 'make clean   remove build/ and out/'

demo:
	@tools/bootstrap.sh requirements/demo.txt requirements/client.txt
	@tools/run_demo.sh

test:
	@tools/bootstrap.sh requirements/demo.txt requirements/test.txt requirements/client.txt
	@tools/run_tests.sh

sanitize:
	@tools/bootstrap.sh
	@tools/run_sanitizers.sh

build:
	@tools/bootstrap.sh
	@mkdir -p build
	@cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@sed -n '/^-- Braid:/p' build/configure.log
	@cmake --build --preset release

lint:
	@tools/lint.sh

clean:
	rm -rf build out
