# Everything a user or developer does. `make help` lists it.
PYTHON ?=
# cpu or cuda; where it is not set, by whether there is an NVIDIA driver. PyTorch's own index has the builds for CPUs.
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl
MODEL ?=
SOURCE ?=
GRPC_PORT ?= 50051
HTTP_PORT ?= 8000
TARGET ?= localhost:$(GRPC_PORT)
INFERENCE_IMAGE ?= qwen3-chat/inference
BRIDGE_IMAGE ?= qwen3-chat/bridge
BASE ?=
REQUIRE_CUDA ?= 1
SHAPES ?=
URL ?=
POINT ?=
BENCH_MODEL ?=
NAME ?=

VENV := .venv
BIN := $(VENV)/bin
DRIVER_FILE := /proc/driver/nvidia/version
WITH_PYTHON = python="$$(sh scripts/find_python.sh "$(VENV)" "$(PYTHON)")" && exec "$$python"
SET_UP = $(WITH_PYTHON) -m scripts.set_up "$(VENV)" --torch-index "$(TORCH_INDEX)" --driver-file "$(DRIVER_FILE)"
RUN = -m scripts.run --model "$(or $(MODEL),demo)" --grpc-port "$(GRPC_PORT)" --http-port "$(HTTP_PORT)"
PROTO := protos/chat/v1/chat.proto
LABELS = --label org.opencontainers.image.revision=$(shell git rev-parse HEAD 2>/dev/null)

.PHONY: help run settings test test-all chaos check bench protos download chat demo-model chat-picture images images-check FORCE

help: ## Lists the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: settings $(VENV)/native.built ## Serves chats on HTTP_PORT (8000) and GRPC_PORT (50051); MODEL=DIR serves a checkpoint
	@exec $(BIN)/python $(RUN)

settings:
	@$(WITH_PYTHON) $(RUN) --check

test: $(VENV)/dev.installed ## Runs the tests
	$(BIN)/python -m pytest

test-all: $(VENV)/dev.installed ## Runs the tests with the long counts
	$(BIN)/python -m pytest -m "slow or not slow"

chaos: $(VENV)/dev.installed ## Measures what hostile requests, clients and machines cost (25 min); POINT=overload chooses
	@$(BIN)/python -m tests.chaos "$(POINT)"

check: $(VENV)/dev.installed ## Lints and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/buf lint protos

bench: $(VENV)/bench.installed ## Measures the service; SHAPES="tiny 4b" chooses, URL and BENCH_MODEL measure another server
	@$(BIN)/python -m benchmarks $(foreach shape,$(SHAPES),--shape $(shape)) $(if $(URL),--url "$(URL)") \
		$(if $(BENCH_MODEL),--model "$(BENCH_MODEL)") $(if $(NAME),--name "$(NAME)")

protos: $(VENV)/dev.installed ## Generates the Python code of chat.proto
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I. \
		--python_out=. --pyi_out=. --grpc_python_out=. --mypy_grpc_out=. $(PROTO)

download: $(VENV)/run.installed ## Downloads Qwen3-4B-Instruct-2507 (8 GB) into models/; MODEL=OWNER/NAME, SOURCE=huggingface
	@$(BIN)/python -m inference_server.download $(if $(MODEL),--repository "$(MODEL)") $(if $(SOURCE),--source "$(SOURCE)")

chat: $(VENV)/run.installed ## Chats in the terminal; TARGET=http://localhost:8000 goes through the bridge
	@exec $(BIN)/python -m clients.chat --target "$(TARGET)"

demo-model: $(VENV)/run.installed ## Trains the embedded demo model anew
	$(BIN)/python -m inference_server.demo_model.train

chat-picture: $(VENV)/dev.installed ## Draws docs/chat.svg anew
	$(BIN)/python -m scripts.chat_picture

images: ## Builds both Docker images; BASE is the inference image's, REQUIRE_CUDA=0 allows one without CUDA
	docker build $(LABELS) $(if $(BASE),--build-arg "BASE=$(BASE)") --build-arg "REQUIRE_CUDA=$(REQUIRE_CUDA)" \
		-f Dockerfile.inference -t "$(INFERENCE_IMAGE)" .
	docker build $(LABELS) -f Dockerfile.bridge -t "$(BRIDGE_IMAGE)" .

images-check: $(VENV)/run.installed ## Builds both images, runs them hardened and asks a question
	$(BIN)/python -m scripts.images_check

FORCE:

REQUIREMENTS = requirements/inference.txt requirements/bridge.txt requirements/client.txt requirements/constraints.txt
$(VENV)/run.installed: $(REQUIREMENTS) $(if $(TORCH)$(PYTHON),FORCE)
	@$(SET_UP) --torch "$(TORCH)" --stamp run inference bridge client

$(VENV)/native.built: $(VENV)/run.installed inference_server/engine/native/build.py \
		$(wildcard inference_server/engine/native/*.[ch])
	@$(BIN)/python -m inference_server.engine.native.build
	@touch $@

$(VENV)/bench.installed: $(VENV)/native.built requirements/bench.txt
	@$(SET_UP) --stamp bench bench

$(VENV)/dev.installed: $(VENV)/native.built requirements/dev.txt requirements/bench.txt
	@$(SET_UP) --stamp dev dev
