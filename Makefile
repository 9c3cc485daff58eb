# Every target works alone on a machine with python3 and make: it sets up .venv first.
# Variables are overridden on the command line:  make train WORK=runs/mine FLAGS=--epochs=5

PYTHON  ?= python3
VENV    := .venv
PY      := $(VENV)/bin/python
READY   := $(VENV)/.ready

VENV_GCP  := .venv-gcp
PY_GCP    := $(VENV_GCP)/bin/python
READY_GCP := $(VENV_GCP)/.ready

VENV_DOCS  := .venv-docs
PY_DOCS    := $(VENV_DOCS)/bin/python
READY_DOCS := $(VENV_DOCS)/.ready

VENV_INFRA  := .venv-infra
PY_INFRA    := $(VENV_INFRA)/bin/python
READY_INFRA := $(VENV_INFRA)/.ready

VENV_BENCH  := .venv-bench
PY_BENCH    := $(VENV_BENCH)/bin/python
READY_BENCH := $(VENV_BENCH)/.ready

DATASET ?= demo
WORK    ?= runs/$(notdir $(DATASET:%/=%))
SPLIT   ?= validation
INIT    ?=
FLAGS   ?=

PHOTOS     ?= $(WORK)/photos/$(SPLIT)
DATA       ?= $(WORK)/data
NUM_SHARDS ?= 8
MODEL      ?= $(WORK)/model
CHECKPOINT ?= $(MODEL)
CONVERTED  ?= $(WORK)/converted
EVALUATION ?= $(WORK)/evaluation.json
EXPORT     ?= $(WORK)/export
FORMATS    ?=
PUBLISHED  ?= $(WORK)/published
ALIAS      ?=
LATENCY    ?= $(WORK)/latency.json
REPORT     ?= $(WORK)/report.html
PREVIEW    ?= $(WORK)/preview.png
RECIPE     ?= small
WORKERS    ?= 2

# Of jobs in the cloud.
PROJECT    ?=
REGION     ?=
BUCKET     ?=
EXPERIMENT ?=
TOPOLOGY   ?=
DRY_RUN    ?=

PRETRAINING ?= runs/pretraining

.DEFAULT_GOAL := help
.PHONY: help setup run demo-weights preprocess verify-data explore convert doctor preview \
        train train-recipe train-mbnv1 train-mbnv2 train-mbnv3 fine-tune train-workers tensorboard \
        evaluate export publish serve report latency recipes zoo \
        submit-preprocess submit-train submit-evaluate submit-export submit-publish submit-run \
        specs manifests \
        benchmark benchmark-build benchmark-input benchmark-step benchmark-loop \
        benchmark-evaluation benchmark-latency \
        docs linkcheck \
        test test-long test-flink test-cloud test-docs lint lint-infra format lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with everything in it

# uv installs in seconds what pip installs in minutes; where it cannot reach a registry that pip is
# configured for, pip does it.
$(READY): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.10 to 3.13: name one by PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check uv -c constraints.txt
	$(VENV)/bin/uv pip install --quiet --python $(PY) -c constraints.txt -e '.[dev]' || \
	  $(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

run: $(READY)  ## the whole line: DATASET=demo, imagenette or a directory; INIT=tf1 or scratch
	$(PY) -m pipeline.run --dataset=$(DATASET) --work_dir=$(WORK) $(if $(INIT),--init=$(INIT)) $(FLAGS)

demo-weights: $(READY)  ## make the TF1 checkpoint anew that the demo starts from
	$(PY) -m pipeline.run --dataset=pretraining --work_dir=$(PRETRAINING) $(FLAGS)
	$(PY) -m loaders.convert --checkpoint_path=$(PRETRAINING)/export/checkpoint --to=tf1 \
	  --output_dir=pipeline/demo_weights/mobilenet_v1_0.25_96

preprocess: $(READY)  ## class folders PHOTOS into shards DATA of SPLIT
	$(PY) -m preprocessing.build_dataset --source=$(PHOTOS) --output_dir=$(DATA) \
	  --split=$(SPLIT) --num_shards=$(NUM_SHARDS) $(FLAGS)

verify-data: $(READY)  ## prove the shards of SPLIT in DATA whole
	$(PY) -m preprocessing.verify --data_dir=$(DATA) --split=$(SPLIT) $(FLAGS)

explore: $(READY)  ## draw a page about DATA
	$(PY) -m preprocessing.explore --data_dir=$(DATA) --output=$(WORK)/explore.html $(FLAGS)

convert: $(READY)  ## TF1 checkpoint CHECKPOINT into a TF2 one in CONVERTED
	$(PY) -m loaders.convert --checkpoint_path=$(CHECKPOINT) --output_dir=$(CONVERTED) $(FLAGS)

doctor: $(READY)  ## measure what binds training on DATA, and check the machine before a long run
	$(PY) -m training.doctor --data_dir=$(DATA) $(FLAGS)

preview: $(READY)  ## draw into PREVIEW what training sees of DATA
	$(PY) -m training.preview --data_dir=$(DATA) --output=$(PREVIEW) $(FLAGS)

train: $(READY)  ## train on DATA into MODEL, or go on with what is there
	$(PY) -m training.train --data_dir=$(DATA) --model_dir=$(MODEL) $(FLAGS)

train-recipe:  ## the same by RECIPE: `python -m pipeline.experiments` lists them
train-mbnv1: RECIPE = mobilenet_v1#  ## MobileNetV1 on ImageNet's shards in DATA, 30 epochs
train-mbnv2: RECIPE = mobilenet_v2#  ## MobileNetV2, likewise
train-mbnv3: RECIPE = mobilenet_v3_large#  ## MobileNetV3-Large, likewise
fine-tune: RECIPE = fine-tune#  ## train checkpoint INIT on DATA; FLAGS=--model_name=... says what it is
train-recipe train-mbnv1 train-mbnv2 train-mbnv3 fine-tune: $(READY)
	$(PY) -m pipeline.train_recipe --recipe=$(RECIPE) --data_dir=$(DATA) --model_dir=$(MODEL) \
	  $(if $(INIT),--init_checkpoint=$(INIT)) $(FLAGS)

train-workers: $(READY)  ## train by RECIPE in WORKERS processes, which are started again when lost
	$(PY) -m training.launch --num_workers=$(WORKERS) --module=pipeline.train_recipe -- \
	  --recipe=$(RECIPE) --data_dir=$(DATA) --model_dir=$(MODEL) \
	  $(if $(INIT),--init_checkpoint=$(INIT)) $(FLAGS)

tensorboard: $(READY)  ## watch the training in MODEL
	$(VENV)/bin/tensorboard --logdir=$(MODEL)/logs

evaluate: $(READY)  ## evaluate CHECKPOINT on SPLIT of DATA
	$(PY) -m pipeline.evaluate --checkpoint_path=$(CHECKPOINT) --data_dir=$(DATA) \
	  --split=$(SPLIT) --output=$(EVALUATION) $(FLAGS)

export: $(READY)  ## CHECKPOINT in FORMATS (or all) into EXPORT, if they agree with it
	$(PY) -m pipeline.export --checkpoint_path=$(CHECKPOINT) --data_dir=$(DATA) \
	  --split=$(SPLIT) --export_dir=$(EXPORT) $(if $(FORMATS),--formats=$(FORMATS)) $(FLAGS)

publish: $(READY)  ## EXPORT as a new version in PUBLISHED, a directory or gs://BUCKET/NAME; ALIAS=stable
	$(PY) -m pipeline.publish --export_dir=$(EXPORT) --to=$(PUBLISHED) \
	  $(if $(ALIAS),--alias=$(ALIAS)) $(FLAGS)

serve: $(READY)  ## a page on this machine where EXPORT is tried on photos
	$(PY) -m pipeline.serve --export_dir=$(EXPORT) $(FLAGS)

latency: $(READY)  ## how long the artifacts of EXPORT take for one photo, into LATENCY
	$(PY) -m benchmarks.latency --export_dir=$(EXPORT) --json=$(LATENCY) $(FLAGS)

report: $(READY)  ## draw REPORT from DATA, MODEL, EVALUATION, EXPORT, and LATENCY where it is there
	$(PY) -m pipeline.report --data_dir=$(DATA) --model_dir=$(MODEL) \
	  --evaluation=$(EVALUATION) --export_dir=$(EXPORT) --output=$(REPORT) \
	  $(if $(wildcard $(LATENCY)),--latency=$(LATENCY)) $(FLAGS)

manifests: $(READY_GCP)  ## write infra/kubernetes and infra/kubeflow anew
	$(PY_GCP) -m pipeline.manifests --format=kubernetes --output=infra/kubernetes/demo \
	  --image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/train-cpu:1 --work_dir=/work/demo \
	  --init=scratch --cpus=2 --memory=4Gi --volume_size=5Gi $(FLAGS)
	$(PY_GCP) -m pipeline.manifests --format=kubernetes --output=infra/kubernetes/imagenet \
	  --image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/train-gpu:1 --work_dir=gs://BUCKET/imagenet \
	  --dataset=imagenet --train_source=gs://BUCKET/ILSVRC2012_img_train.tar \
	  --validation_source=gs://BUCKET/ILSVRC2012_img_val.tar \
	  --experiment=mobilenet_v3_large_paper --train_flags=--precision=bfloat16 \
	  --service_account=trainer --workers=4 --gpus=8 --train_cpus=90 --train_memory=600Gi \
	  --memory=16Gi
	$(PY_GCP) -m pipeline.manifests --format=kubeflow --output=infra/kubeflow/pipeline.yaml \
	  --image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/train-gpu:1 --work_dir=gs://BUCKET/imagenet \
	  --dataset=imagenet --train_source=gs://BUCKET/ILSVRC2012_img_train.tar \
	  --validation_source=gs://BUCKET/ILSVRC2012_img_val.tar --experiment=mobilenet_v3_large \
	  --train_flags=--precision=bfloat16 --memory=16Gi --gpus=1 --gpu_type=NVIDIA_L4 \
	  --train_cpus=16 --train_memory=64Gi

submit-preprocess:  ## build a split on Dataflow from a job on Vertex AI; DRY_RUN=1 only prints it
submit-train:  ## train EXPERIMENT on TOPOLOGY there, likewise
submit-evaluate:  ## evaluate what was trained, likewise
submit-export:  ## export it, likewise
submit-publish:  ## publish the export, likewise
submit-run:  ## the whole line in one job, likewise
submit-preprocess submit-train submit-evaluate submit-export submit-publish submit-run: $(READY)
	$(PY) -m pipeline.submit --stage=$(@:submit-%=%) --project=$(PROJECT) --region=$(REGION) \
	  --bucket=$(BUCKET) $(if $(EXPERIMENT),--experiment=$(EXPERIMENT)) \
	  $(if $(TOPOLOGY),--topology=$(TOPOLOGY)) $(if $(DRY_RUN),,--submit) $(FLAGS)

specs: $(READY)  ## write infra/vertex/ anew
	$(PY) -m pipeline.submit --write_specs=infra/vertex $(FLAGS)

recipes: $(READY)  ## write docs/recipes.md anew from pipeline/recipes/
	$(PY) -m pipeline.experiments --format=markdown --output=docs/recipes.md $(FLAGS)

zoo: $(READY)  ## the released checkpoints, published figures beside our own
	$(PY) -m loaders.zoo $(FLAGS)

benchmark: $(READY)  ## building and loading a model, beside keras.applications
	$(PY) -m benchmarks.model_loading $(FLAGS)

benchmark-build: $(READY)  ## building a data set of PHOTOS, beside copying and a plain Beam pipeline
	$(PY) -m benchmarks.build_dataset --photos=$(PHOTOS) $(FLAGS)
	$(PY) -m benchmarks.planning

# The libraries that training is measured beside have an environment of their own.
$(READY_BENCH): benchmarks/requirements.txt $(READY)
	$(PYTHON) -m venv $(VENV_BENCH)
	@echo '*' > $(VENV_BENCH)/.gitignore
	$(VENV)/bin/uv pip install --quiet --python $(PY_BENCH) -r benchmarks/requirements.txt || \
	  $(PY_BENCH) -m pip install --quiet -r benchmarks/requirements.txt
	@touch $@

benchmark-input: $(READY_BENCH)  ## reading and decoding PHOTOS, beside other loaders
	$(PY) -m benchmarks.input_speed --photos=$(PHOTOS) $(FLAGS)

benchmark-step: $(READY_BENCH)  ## training steps, beside timm and keras.applications
	$(PY) -m benchmarks.step_speed $(FLAGS)

benchmark-loop: $(READY)  ## what the loop adds to its steps, and what resuming costs
	$(PY) -m benchmarks.loop_overhead --photos=$(PHOTOS) $(FLAGS)
	$(PY) -m benchmarks.resume_cost

benchmark-evaluation: $(READY)  ## evaluating PHOTOS, beside bare inference
	$(PY) -m benchmarks.evaluation_speed $(FLAGS)

benchmark-latency: $(READY)  ## the artifacts of EXPORT, beside keras.applications' own
	$(PY) -m benchmarks.latency --export_dir=$(EXPORT) --beside=keras.applications $(FLAGS)

test: $(READY)  ## the tests, under 15 minutes with set-up
	$(PY) -m pytest -q -n 2 --dist=loadfile -m "not long and not flink and not cloud and not docs and not infra"

test-long: $(READY)  ## the soaks
	$(PY) -m pytest -q -n 2 --dist=loadfile -m long

test-flink: $(READY)  ## build on a Flink that is fetched with Maven, and compare the bytes
	$(PY) infra/flink/fetch_job_server.py
	$(PY) -m pytest -q -m flink tests/flink

# Google's and Kubeflow's clients make each import of Beam slower, so they have an environment of
# their own.
$(READY_GCP): setup.py constraints.txt $(READY)
	$(PYTHON) -m venv $(VENV_GCP)
	@echo '*' > $(VENV_GCP)/.gitignore
	$(VENV)/bin/uv pip install --quiet --python $(PY_GCP) -c constraints.txt \
	  -e '.[dev,gcp,kubeflow,vertex]' || \
	  $(PY_GCP) -m pip install --quiet -c constraints.txt -e '.[dev,gcp,kubeflow,vertex]'
	@touch $@

test-cloud: $(READY_GCP)  ## what is sent to Dataflow, Vertex AI and Kubeflow, without the cloud
	$(PY_GCP) -m pytest -q -m cloud tests/cloud tests/dataflow tests/infra

# Sphinx has no part in training, and needs a newer Python than that.
$(READY_DOCS): setup.py constraints.txt $(READY)
	$(PYTHON) -m venv $(VENV_DOCS)
	@echo '*' > $(VENV_DOCS)/.gitignore
	$(VENV)/bin/uv pip install --quiet --python $(PY_DOCS) -c constraints.txt $(SITE) || \
	  $(PY_DOCS) -m pip install --quiet -c constraints.txt $(SITE)
	@touch $@

SITE   := sphinx furo myst-parser sphinx-copybutton
SPHINX := $(PY_DOCS) -m sphinx -q -W --keep-going -d build/doctrees -c docs

docs: $(READY_DOCS)  ## the site of these pages, into build/docs; it needs Python 3.11 or newer
	$(SPHINX) -b html . build/docs

linkcheck: $(READY_DOCS)  ## ask for the pages' links to elsewhere
	$(SPHINX) -b linkcheck . build/linkcheck

test-docs: $(READY_DOCS)  ## build the site, and look at it in a browser
	$(PY) -m pytest -q -m docs tests/docs

lint: $(READY)  ## check style
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(READY_INFRA): infra/requirements.txt $(READY)
	$(PYTHON) -m venv $(VENV_INFRA)
	@echo '*' > $(VENV_INFRA)/.gitignore
	$(VENV)/bin/uv pip install --quiet --python $(PY_INFRA) -r infra/requirements.txt || \
	  $(PY_INFRA) -m pip install --quiet -r infra/requirements.txt
	@touch $@

lint-infra: $(READY_INFRA)  ## check Dockerfiles, and Terraform's files where there is Terraform
	$(PY) -m pytest -q tests/infra -m "not long and not cloud"

format: $(READY)  ## mend style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

LOCKED := dev docs gcp kubeflow onnx vertex
# It asks for a Python older than 3.11, which pip heeds and uv does not.
NOT_LOCKED := backports-strenum

lock: $(READY)  ## renew constraints.txt from setup.py
	$(VENV)/bin/uv pip compile --quiet --no-python-downloads --universal --python-version=3.10 --no-header \
	  --no-annotate $(LOCKED:%=--extra=%) $(NOT_LOCKED:%=--no-emit-package=%) \
	  setup.py --output-file=constraints.txt

clean:  ## remove .venv and caches, not the runs
	rm -rf $(VENV) $(VENV_GCP) $(VENV_DOCS) $(VENV_INFRA) \
	  $(VENV_BENCH) .cache build *.egg-info .pytest_cache .ruff_cache
