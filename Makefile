# Pi Voice. `make` lists the targets. Every target installs what it needs.

PYTHON    ?= python3
PORT      ?= 3000
WEB_PORT  ?= 8080
RECEIVER_PORT ?= 9000
BACKEND   ?= python
STACK     ?= pi-voice
ARCH      ?= arm64
BUILD_DIR ?= .aws-sam/build
MACHINE   := $(subst aarch64,arm64,$(shell uname -m 2>/dev/null))
RUNTIME   := python3.13

# Build for this machine's processor, for sam-invoke and sam-api; rebuilt when a source changes.
LOCAL_BUILD_DIR ?= .aws-sam/$(MACHINE)
DEPLOYED := template.yaml $(wildcard functions/*/*.py $(addprefix layers/voice/,Makefile *.py *.txt */*.py */*/*.py))

# sam build does not pass the architecture to a makefile layer, so layers/voice/Makefile reads it from here.
export ARCH
export SAM_CLI_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:
.PHONY: help run web-example webhook-example sam-api sam-invoke demo doctor check-schema test test-real check-client test-browser pack-client test-durability model extraction-report fuzz mutants bench check lint types format build validate deploy secrets api-key redrive openapi events release lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

# ---- On this machine ------------------------------------------------------------------------------------

run: .venv ## Run the whole API locally, without Docker or an AWS account (PORT=3000)
	@PYTHONPATH=layers/voice exec .venv/bin/python -m local --port "$(PORT)"

web-example: .venv ## Serve a web page that talks to an agent of `make run` (PORT=3000 WEB_PORT=8080 BACKEND=node)
	@.venv/bin/python -m demo.web_example --port "$(PORT)" --check
	@$(MAKE) --no-print-directory js-client
	@exec .venv/bin/python -m demo.web_example --port "$(PORT)" --web-port "$(WEB_PORT)" --backend "$(BACKEND)"

webhook-example: .venv ## Receive the webhooks of `make run`, and print them (PORT=3000 RECEIVER_PORT=9000 BACKEND=node)
	@.venv/bin/python -m demo.webhook_example --port "$(PORT)" --backend "$(BACKEND)" --check
	@$(if $(filter node,$(BACKEND)),$(MAKE) --no-print-directory webhook-receiver)
	@exec .venv/bin/python -m demo.webhook_example --port "$(PORT)" --receiver-port "$(RECEIVER_PORT)" --backend "$(BACKEND)"

sam-api: .venv .venv-sam local-build ## Run the whole API locally with functions in Docker (PORT=3000)
	@PYTHONPATH=layers/voice exec .venv/bin/python -m local.sam api --build $(LOCAL_BUILD_DIR) --port "$(PORT)"

sam-invoke: .venv .venv-sam local-build ## Run one function in Docker (FUNCTION=CreateSession EVENT=events/create_session.json)
	@PYTHONPATH=layers/voice exec .venv/bin/python -m local.sam invoke --build $(LOCAL_BUILD_DIR) \
	  --function "$(FUNCTION)" --event "$(EVENT)"

demo: .venv ## Show a whole call, from greeting to results (AGENT=examples/intake.json PACE=4 ARGS="--record call.wav")
	@exec .venv/bin/python -m demo $(AGENT) $(if $(PACE),--pace "$(PACE)") $(ARGS)

doctor: .venv ## Check that the environment's keys, or a stack's, can hold a call (STACK=pi-voice)
	@PYTHONPATH=layers/voice exec .venv/bin/python -m doctor $(if $(filter-out file,$(origin STACK)),"$(STACK)")

check-schema: .venv ## Check an output schema offline, and show what is sent to Gemini (FILE=schema.json ARGS="--hints")
	@PYTHONPATH=layers/voice exec .venv/bin/python -m local.check_schema $(ARGS) "$(FILE)"

test: environments ## Run the tests on all cores (ARGS="-k webhook" COVERAGE=1)
	@.venv/bin/pytest -n auto --dist loadfile $(if $(COVERAGE),--cov=functions --cov=layers/voice/pi_voice) $(ARGS)

test-real: environments ## Run the tests with LiveKit server, DynamoDB Local, SAM in Docker, Node (REQUIRE_REAL=1: skip none)
	@.venv/bin/pytest -m real -o faulthandler_timeout=600 $(ARGS)

check-client: js-client ## Check the browser client and its React hook: style, types, size, tests
	@cd clients/js && npm run --silent lint && npm run --silent types && npm test --silent

test-browser: .venv js-client ## Run the browser client in Chromium and Firefox (ARGS="-t microphone")
	@cd clients/js && npm run --silent test:browser -- $(ARGS)

pack-client: js-client ## Pack the browser client and its React hook for npm install
	@cd clients/js && rm -rf dist && mkdir dist && npm pack --silent --workspaces --pack-destination dist >/dev/null
	@echo "In the folder of your app: npm install $(CURDIR)/clients/js/dist/*.tgz"

test-durability: .venv ## Kill workers at every step, make every service fail, and look for lost calls
	@.venv/bin/pytest tests/durability -m durability -n 2 --dist loadfile --no-loadscope-reorder \
	  -o faulthandler_timeout=600 $(ARGS)

model: .venv ## Check the model of a session row (needs spin and gcc)
	@.venv/bin/pytest tests/durability/model -m model -n 2 -o faulthandler_timeout=600 $(ARGS)

extraction-report: .venv ## Extract every call of the corpus and report (GEMINI_API_KEY: score Gemini)
	@PYTHONPATH=.:layers/voice .venv/bin/python -m tests.contracts.extraction.report

fuzz: .venv ## Fuzz the API
	@.venv/bin/pytest -m fuzz

mutants: .venv .venv-mutants ## Change the code in random places, and print what no test notices (SEED=7 FILES=path)
	@PYTHONPATH=. .venv-mutants/bin/python -m tests.support.mutants $(if $(SEED),--seed "$(SEED)") $(FILES)

bench: .venv .venv-sam local-build ## Measure, and write docs/performance.md and docs/scale.md (ARGS="cold warm")
	@PYTHONPATH=.:layers/voice .venv/bin/python -m bench $(ARGS)

check: lint types test fuzz ## Run lint, types, test and fuzz

lint: .venv ## Check style, formatting and layers
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@PYTHONPATH=.:layers/voice .venv/bin/lint-imports --no-logo --no-cache

types: .venv ## Check types
	@.venv/bin/mypy

format: .venv ## Format, and fix lint errors where possible
	@.venv/bin/ruff format
	@.venv/bin/ruff check --fix

# ---- To AWS ---------------------------------------------------------------------------------------------

build: .venv-sam ## Build the functions and the layer (ARCH=arm64 or x86_64)
	@bin="$$(deploy/find_python.sh $(RUNTIME))" && PATH="$$bin:$$PATH" \
	  .venv-sam/bin/sam build --build-dir $(BUILD_DIR) --parameter-overrides Architecture=$(ARCH) >/dev/null # advice
	@.venv-sam/bin/python deploy/pin_architecture.py $(BUILD_DIR)/template.yaml $(ARCH)
	@$(if $(TOOL_CALL_CONCURRENCY),.venv-sam/bin/python deploy/provision_tool_calls.py $(BUILD_DIR) "$(TOOL_CALL_CONCURRENCY)")
	@echo "Built in $(BUILD_DIR)."

# Built aside and renamed, one at a time, for commands that start together.
.PHONY: local-build
local-build:
	@$(PYTHON) requirements/locked.py $(LOCAL_BUILD_DIR).lock $(MAKE) --no-print-directory $(LOCAL_BUILD_DIR)/template.yaml

$(LOCAL_BUILD_DIR)/template.yaml: $(DEPLOYED)
	@$(MAKE) --no-print-directory build ARCH=$(MACHINE) BUILD_DIR=$(LOCAL_BUILD_DIR).new >&2
	@rm -rf $(LOCAL_BUILD_DIR)
	@mv $(LOCAL_BUILD_DIR).new $(LOCAL_BUILD_DIR)

validate: .venv-sam ## Check the template
	@.venv-sam/bin/sam validate --lint

deploy: build .venv ## Build and deploy (STACK=pi-voice LIVEKIT_URL=wss://... PARAMETERS="LogLevel=DEBUG ..." TOOL_CALL_CONCURRENCY=2)
	@.venv-sam/bin/sam deploy --config-file "$(CURDIR)/samconfig.toml" \
	  --template-file $(BUILD_DIR)/template.yaml --stack-name $(STACK) \
	  --parameter-overrides Architecture=$(ARCH) $(if $(LIVEKIT_URL),LiveKitUrl=$(LIVEKIT_URL)) $(PARAMETERS)
	@PYTHONPATH=layers/voice .venv/bin/python deploy/check_live_model.py $(STACK)

secrets: .venv ## Store the environment's LiveKit and Gemini keys for a stack (STACK=pi-voice ROTATE=client-token or webhooks)
	@.venv/bin/python deploy/write_secrets.py $(STACK) $(ROTATE)

api-key: .venv ## Create an API key of a workspace and print it (STACK=pi-voice WORKSPACE=... NAME=...)
	@.venv/bin/python deploy/create_api_key.py $(STACK) "$(WORKSPACE)" "$(NAME)"

redrive: .venv ## Try failed extractions and events again, after their cause was removed (STACK=pi-voice)
	@.venv/bin/python deploy/redrive.py $(STACK)

# ---- Housekeeping ---------------------------------------------------------------------------------------

openapi: .venv ## Write docs/openapi.json, its example responses and the tables of routes from the functions
	@PYTHONPATH=.:layers/voice .venv/bin/python docs/responses.py
	@PYTHONPATH=.:layers/voice .venv/bin/python docs/openapi.py

events: .venv ## Write the sample events of events/ from events/samples.py
	@PYTHONPATH=.:layers/voice .venv/bin/python -m events.samples

release: .venv ## Commit and tag a version (VERSION=1.2.0)
	@PYTHONPATH=.:layers/voice .venv/bin/python deploy/release.py "$(VERSION)"

lock: ## Update all pinned versions (needs uv)
	@for name in layers/voice/requirements $(basename $(wildcard requirements/*.in)); do \
	  uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $$name.in -o $$name.txt || exit 1; \
	done

clean: ## Remove everything that make created
	@rm -rf clients/js/node_modules clients/js/dist clients/js/packages/*/dist clients/js/packages/*/LICENSE
	@rm -rf examples/webhooks/node_modules .web-example .run
	@rm -rf .venv .venv-sam .venv-mutants .environments .bench .real .aws-sam .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

# The environments. An up-to-date one takes milliseconds.
.PHONY: .venv .venv-sam .venv-mutants environments
INSTALL = command -v $(PYTHON) >/dev/null || { echo "Pi Voice needs Python 3.11 or later, and there is no $(PYTHON):" \
  "install it, or name another with PYTHON=..." >&2; exit 1; }; $(PYTHON) requirements/install.py

.venv:
	@$(INSTALL) .venv=requirements/dev.txt

.venv-sam:
	@$(INSTALL) .venv-sam=requirements/sam.txt

.venv-mutants:
	@$(INSTALL) .venv-mutants=requirements/mutants.txt

environments: # both, concurrently
	@$(INSTALL) .venv=requirements/dev.txt .venv-sam=requirements/sam.txt

# What the receiver of webhooks in Node.js needs, by the hashes of its lock file.
.PHONY: webhook-receiver
webhook-receiver:
	@command -v npm >/dev/null || { echo "There is no npm on PATH, which installs what the receiver needs:" \
	  "install Node.js 20 or later." >&2; exit 1; }
	@$(PYTHON) requirements/locked.py .environments/webhook-receiver.lock \
	  $(MAKE) --no-print-directory --silent $(RECEIVER_MODULES)

RECEIVER := examples/webhooks
RECEIVER_MODULES := $(RECEIVER)/node_modules/.installed

$(RECEIVER_MODULES): $(RECEIVER)/package.json $(RECEIVER)/package-lock.json
	@cd $(RECEIVER) && npm ci --no-audit --no-fund --loglevel=error >&2
	@touch $@

# The browser client and the page in React, built with npm; an up-to-date one takes milliseconds.
.PHONY: js-client
js-client:
	@command -v npm >/dev/null || { echo "There is no npm on PATH, which builds the browser client:" \
	  "install Node.js 20 or later." >&2; exit 1; }
	@$(PYTHON) requirements/locked.py .environments/js-client.lock $(MAKE) --no-print-directory --silent $(REACT_PAGE)

JS := clients/js
JS_MODULES := $(JS)/node_modules/.installed
JS_CLIENT := $(JS)/packages/client/dist/index.js
REACT_PAGE := .web-example/react.js

$(JS_MODULES): $(JS)/package-lock.json $(wildcard $(JS)/package.json $(JS)/packages/*/package.json)
	@echo "Installing what builds the browser client ..." >&2
	@cd $(JS) && npm ci --no-audit --no-fund --loglevel=error >&2
	@touch $@

$(JS_CLIENT): $(JS_MODULES) $(wildcard $(JS)/*.json $(JS)/*.js $(JS)/*.mjs $(JS)/packages/*/*.* $(JS)/packages/*/src/*.* $(JS)/packages/*/src/*/*.*)
	@cd $(JS) && npm run --silent build >&2
	@touch $@

$(REACT_PAGE): $(JS_CLIENT) examples/web/react.jsx
	@NODE_PATH=$(JS)/node_modules $(JS)/node_modules/.bin/esbuild examples/web/react.jsx --bundle --minify --format=esm \
	  --jsx=automatic --define:process.env.NODE_ENV='"production"' --alias:@pi-voice/client=/@pi-voice/client/index.js \
	  --external:/@pi-voice/* --log-level=warning --outfile=$@
