"""Runs a stage on Vertex AI: `python -m pipeline.submit`.

Makes the job's specification, checks it, and says what it would take and cost. Nothing is sent
unless --submit is given.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

from common import buckets, command, files
from common.command import flag
from common.errors import UsageError, UserError
from pipeline.cloud import checks, commands, specs
from pipeline.cloud.checks import Check, Outcome
from pipeline.cloud.commands import (
    EVALUATION,
    EXPORT,
    PREPROCESS,
    PUBLISH,
    RUN,
    STAGES,
    TRAINING,
    Dataflow,
    Places,
)
from pipeline.cloud.names import FORMS, JOB_NAME, require_form
from pipeline.cloud.spec_files import folded, to_yaml, write_spec_files
from pipeline.cloud.topologies import BUILD, EVALUATOR, TOPOLOGIES, Topology, find_topology
from pipeline.experiments import DEMO, EXPERIMENTS, SCRATCH, Experiment, find_experiment
from training import runtime
from training.config import Recipe
from training.readers.slices import parse_split

if TYPE_CHECKING:
    from pipeline.cloud.estimate import Estimate
    from preprocessing.manifest import Manifest

GCLOUD, CLIENT = "gcloud", "client"

_DEFAULT_TOPOLOGIES = {TRAINING: "gpu-8", EVALUATION: "gpu-1"}
_OTHERWISE = "cpu"
_FLAGS_OF_THE_STAGE = (
    "flags of the stage's own command, which win over what is chosen here; with"
    " --stage=preprocess, those of Beam stand behind a second --"
)


@dataclasses.dataclass(frozen=True)
class SubmitConfig:
    """Which stage runs, on which machines, and where everything is."""

    stage: str | None = flag(None, help="what is run", choices=STAGES)
    topology: str = flag(
        "",
        help=f"on which machines: {', '.join(TOPOLOGIES)}; by default"
        f" {_DEFAULT_TOPOLOGIES[TRAINING]} to train, {_DEFAULT_TOPOLOGIES[EVALUATION]} to evaluate,"
        f" one small machine for the rest",
    )
    experiment: str = flag("", help=f"recipe: {', '.join(EXPERIMENTS)}")
    project: str = flag("", help="id of the project that pays")
    region: str = flag("", help="where it runs, for example us-central1")
    bucket: str = flag("", help="bucket for data and runs, with or without gs://")
    repository: str = flag("mobilenet", help="of Artifact Registry in that region, with the images")
    image_tag: str = flag("1", help="tag of the image")
    image: str = flag(
        "", help="URI of another image; by default that of infra/docker/ for these machines"
    )
    package_uri: str = flag(
        "",
        help="gs:// path of this package as a wheel or source distribution, which a container of"
        " Vertex AI's installs at its start, instead of an image",
    )
    executor_image: str = flag("", help="with --package_uri: that container, from Vertex AI's list")
    data_dir: str = flag("", help="the shards; gs://BUCKET/data by default")
    name: str = flag("", help="of the run; by default that of the experiment")
    run_dir: str = flag("", help="what the run writes; gs://BUCKET/runs/NAME by default")
    published: str = flag(
        "", help="where versions are published; gs://BUCKET/published/NAME by default"
    )
    service_account: str = flag(
        "",
        help="address of the account that the job runs as; by default trainer@, to preprocess"
        " builder@PROJECT.iam.gserviceaccount.com, which infra/terraform/ makes",
    )
    spot: bool = flag(
        False, help="run on what others leave over: cheaper, and stopped and started again at times"
    )
    evaluator: bool = flag(False, help="one more machine, with a GPU, evaluates each checkpoint")
    reduction_servers: int | None = flag(
        None, help="machines that sum gradients for several hosts; by default as in the topology"
    )
    max_hours: int = flag(specs.DEFAULT_HOURS, help="the job is ended after so many")
    num_train_examples: int | None = flag(
        None,
        help="photos in the split train, for the estimate; by default as the data's manifest says,"
        " or else ImageNet's",
    )
    num_eval_examples: int | None = flag(None, help="likewise of the split validation")
    spec_dir: str = flag("build/vertex", help="directory that the specification is written to")
    ask_cloud: bool = flag(True, help="look at the bucket: where it lies, and what is in it")
    submit: bool = flag(False, help="submit the job, if no check fails; otherwise nothing is sent")
    via: str = flag(
        GCLOUD, help="with --submit: by which program it is sent", choices=(GCLOUD, CLIENT)
    )
    write_specs: str = flag(
        "", help="write the examples of infra/vertex/ to this directory, and do nothing else"
    )

    def __post_init__(self):
        if self.write_specs:
            return
        for name in ("stage", "project", "region", "bucket"):
            if not getattr(self, name):
                raise UsageError(f"--{name} is required: {_help_of(self, name)}")
        for name, least in (
            ("max_hours", 1),
            ("reduction_servers", 0),
            ("num_train_examples", 1),
            ("num_eval_examples", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name} must be at least {least}, not {value}")
        _require_forms(self)
        if self.image and self.package_uri:
            raise UsageError("give --image or --package_uri: it is a container or a package")
        if bool(self.executor_image) != bool(self.package_uri):
            raise UsageError("--package_uri and --executor_image go together: what runs, and where")


def submit(config: SubmitConfig, more: tuple[str, ...] = ()) -> int:
    """Makes a job of a stage, checks it, and tells its price; sends it with --submit."""
    if config.write_specs:
        for path in write_spec_files(config.write_specs):
            print(path)
        return 0
    experiment = _experiment(config)
    if config.stage == TRAINING:
        runtime.start()  # the rule for batches and the estimate need TensorFlow
    job = make_job(config, experiment, more)
    spec = specs.custom_job_spec(job)
    path = os.path.join(config.spec_dir, f"{job.name}.yaml")
    files.write_text(path, to_yaml(spec))
    found, manifests, recipe = _look(config, job, spec, experiment)
    estimate, estimate_text = _estimate(config, job, experiment, recipe, manifests)
    if config.stage == TRAINING and estimate:
        found += checks.check_time(estimate.hours, job.max_hours)
    words = specs.gcloud_command(job, config.project, path)
    for text in (
        "\n".join(map(str, found)),
        f"{path}:\n\n{to_yaml(spec).rstrip()}",
        estimate_text,
        folded(words),
    ):
        print(f"{text}\n")
    failed = sum(check.outcome is Outcome.WRONG for check in found)
    if not config.submit:
        print(f"not submitted: {_mend(failed) if failed else 'add --submit'}")
        return 1 if failed else 0
    if failed:
        raise UserError(f"not submitted: {_mend(failed)}")
    _send(config, job, spec, words)
    return 0


def make_job(
    config: SubmitConfig, experiment: Experiment | None, more: tuple[str, ...]
) -> specs.Job:
    """The job that the flags ask for.

    Raises:
        UsageError: they do not go together.
    """
    topology = _topology(config)
    bucket = f"gs://{config.bucket.removeprefix('gs://').rstrip('/')}"
    name = config.name or (experiment.name if experiment else "")
    if config.stage == PREPROCESS:
        name = name or "data"
    if not name:
        raise UsageError("--name or --experiment is required: which run is it about?")
    places = Places(
        bucket=bucket,
        data_dir=config.data_dir or files.join(bucket, "data"),
        run_dir=(config.run_dir or files.join(bucket, "runs", name)).rstrip("/"),
        published=config.published or files.join(bucket, "published", name),
    )
    is_build = config.stage == PREPROCESS
    account = config.service_account or specs.account_of(config.project, is_build)
    image = config.image or specs.image_uri(
        config.project,
        config.region,
        config.repository,
        specs.image_name(topology.image, is_build),
        config.image_tag,
    )
    code: specs.Image | specs.Package = specs.Image(image, is_worker=is_build)
    if config.package_uri:
        if is_build:
            raise UsageError("--stage=preprocess runs the image of Dataflow's workers: no package")
        code = specs.Package(config.package_uri, config.executor_image)
    return specs.Job(
        name=f"{name}-{config.stage}".replace("_", "-"),
        command=commands.stage_command(
            config.stage,
            experiment,
            topology,
            places,
            more,
            Dataflow(config.project, config.region, image, account),
        ),
        topology=topology,
        code=code,
        region=config.region,
        service_account=account,
        run_dir=places.run_dir,
        max_hours=config.max_hours,
        labels=(("run", specs.label(name)), ("stage", config.stage)),
    )


def _experiment(config: SubmitConfig) -> Experiment | None:
    if config.experiment:
        return find_experiment(config.experiment)
    if config.stage == TRAINING:
        raise UsageError("--stage=train needs --experiment: by which recipe?")
    return DEMO if config.stage == RUN else None


def _topology(config: SubmitConfig) -> Topology:
    if config.stage == PREPROCESS:
        if config.topology:
            raise UsageError(
                "--stage=preprocess takes no --topology: its workers are Dataflow's, of which"
                " -- -- --max_num_workers=N says the number"
            )
        topology = BUILD
    else:
        topology = find_topology(
            config.topology or _DEFAULT_TOPOLOGIES.get(config.stage, _OTHERWISE)
        )
    changes: dict[str, Any] = {"spot": config.spot or topology.spot}
    if config.evaluator:
        changes["evaluator"] = EVALUATOR
    if config.reduction_servers is not None:
        changes["reduction_servers"] = config.reduction_servers
    topology = dataclasses.replace(topology, **changes)
    if config.stage not in (TRAINING, EVALUATION) and len(topology.pools) > 1:
        raise UsageError(f"--stage={config.stage} runs on one machine: give another --topology")
    if topology.evaluator and config.stage != TRAINING:
        raise UsageError("--evaluator evaluates what is trained: it goes with --stage=train")
    if topology.reduction_servers and topology.num_hosts == 1:
        raise UsageError(
            f"--reduction_servers sum what several hosts send, and {topology.name} has one"
        )
    return topology


def _look(
    config: SubmitConfig, job: specs.Job, spec: dict[str, Any], experiment: Experiment | None
) -> tuple[list[Check], dict[str, Manifest], Recipe | None]:
    """All checks; what was found out about the data; and the recipe with its changes."""
    code = job.code
    needs_checkpoint = bool(experiment) and experiment.init != SCRATCH
    found, parsed = checks.offline_checks(
        spec,
        job.command,
        job.topology,
        job.run_dir,
        job.region,
        [code.uri if isinstance(code, specs.Image) else code.executor],
        needs_checkpoint,
    )
    recipe = commands.recipe_of(parsed)
    found += checks.check_paths(parsed)
    if not config.ask_cloud:
        text = "the bucket was not looked at (--noask_cloud)"
        return [*found, Check(Outcome.UNCHECKED, text)], {}, recipe
    from pipeline.cloud import bucket_checks

    paths = [job.run_dir, *(bucket_checks.as_object(path) for _, path in checks.paths_in(parsed))]
    names = dict.fromkeys(buckets.split(path)[0] for path in paths if files.is_remote(path))
    places = [bucket_checks.check_bucket(f"gs://{name}", job.region) for name in names]
    found += places
    manifests: dict[str, Manifest] = {}
    if any(place.outcome in (Outcome.UNCHECKED, Outcome.WRONG) for place in places):
        text = "what is in the bucket was not looked at: first the bucket must be right"
        return [*found, Check(Outcome.UNCHECKED, text)], manifests, recipe
    if recipe:
        data, manifests = bucket_checks.check_data(recipe.data)
        found += data
    found += [bucket_checks.check_input(*needed) for needed in _inputs(config.stage, parsed)]
    if isinstance(code, specs.Package):
        found.append(bucket_checks.check_input(code.uri, "`pip wheel`, and `gcloud storage cp`,"))
    return found, manifests, recipe


def _inputs(stage: str, parsed: list[Any]) -> list[tuple[str, str]]:
    """What a stage reads, and what makes it."""
    if not parsed:
        return []
    flags = parsed[0]
    if stage in (EVALUATION, EXPORT):
        needed = [(flags.checkpoint_path, "--stage=train")]
        if stage == EXPORT and flags.evaluation:
            needed.append((flags.evaluation, "--stage=evaluate"))
        split = flags.split.partition("[")[0]
        if not getattr(flags, "dataset_name", "") and "," not in f"{split}{flags.data_dir}":
            manifest = files.join(flags.data_dir, split, "manifest.json")
            needed.append((manifest, "--stage=preprocess"))
        return needed
    if stage == PUBLISH and flags.export_dir:
        return [(files.join(flags.export_dir, "export.json"), "--stage=export")]
    if stage == PREPROCESS and not flags.source.startswith("tfds:"):
        return [(flags.source, "`gcloud storage cp`")]
    if stage == RUN and flags.dataset.startswith(checks.ELSEWHERE):
        return [(flags.dataset, "`gcloud storage cp`")]
    return []


def _estimate(
    config: SubmitConfig,
    job: specs.Job,
    experiment: Experiment | None,
    recipe: Recipe | None,
    manifests: dict[str, Manifest],
) -> tuple[Estimate | None, str]:
    """What a job would take and cost, as a record and as text."""
    from pipeline.cloud.estimate import estimate, estimate_build, show

    assumed = (
        "\n\nIt is counted for ImageNet's photos: for others, give --num_train_examples and"
        " --num_eval_examples, or have the bucket looked at."
    )
    if config.stage == PREPROCESS:
        made = estimate_build()
        return made, f"{show(made).rstrip()}{assumed}"
    if not (config.stage == TRAINING and experiment and recipe):
        return None, f"no estimate: there is one for --stage={TRAINING} and --stage={PREPROCESS}"
    sizes = {
        "num_train_examples": _number_in(recipe.data.train_split, config, manifests),
        "num_eval_examples": _number_in(recipe.data.eval_split, config, manifests),
    }
    made = estimate(dataclasses.replace(experiment, recipe=recipe), job.topology, **sizes)
    return made, f"{show(made).rstrip()}{assumed if None in sizes.values() else ''}"


def _number_in(split: str, config: SubmitConfig, manifests: dict[str, Manifest]) -> int | None:
    """Photos in a split or a part of one, such as train[:99%]; None where nobody says how many."""
    if not split:
        return 0
    part = parse_split(split)
    given = {"train": config.num_train_examples, "validation": config.num_eval_examples}
    whole = given.get(part.split)
    if whole is None and part.split in manifests:
        whole = manifests[part.split].num_examples
    if whole is None:
        return None
    start, stop = part.range_of(whole)
    return stop - start


def _send(config: SubmitConfig, job: specs.Job, spec: dict[str, Any], words: list[str]) -> None:
    from pipeline.cloud import sending

    if config.via == GCLOUD:
        sys.stdout.flush()  # before what gcloud says itself
        sending.send_by_gcloud(words)
        return
    client = sending.make_client(config.region)
    print(f"submitted: {sending.send_by_client(client, config.project, job, spec)}")


def _require_forms(config: SubmitConfig) -> None:
    """Makes sure that names and paths are ones that Google Cloud can have.

    Raises:
        UsageError: it says what the first that is not must look like.
    """
    for name in ("data_dir", "run_dir", "published", "package_uri"):
        value = getattr(config, name)
        if value and not files.is_remote(value):
            raise UsageError(f"--{name}={value}: a job elsewhere can only reach gs://...")
    for name in FORMS:
        require_form(name, getattr(config, name))
    length = len(f"{config.name}-{config.stage}")
    if config.name and length > JOB_NAME:
        raise UsageError(
            f"--name is too long: with -{config.stage} behind it at most {JOB_NAME} letters, not"
            f" {length}"
        )
    if files.is_remote(config.spec_dir):
        raise UsageError(f"--spec_dir={config.spec_dir}: gcloud reads local files only")
    if config.stage == RUN and (config.data_dir or config.published):
        raise UsageError(
            f"--stage={RUN} keeps shards and versions below --run_dir: leave --data_dir and"
            " --published out, and say on which photos, -- --dataset=gs://..."
        )


def _mend(failed: int) -> str:
    if failed == 1:
        return "mend what is marked ✗ above"
    return f"mend the {failed} things marked ✗ above"


def _help_of(config: Any, name: str) -> str:
    return next(f.metadata["help"] for f in dataclasses.fields(config) if f.name == name)


if __name__ == "__main__":
    command.run(submit, SubmitConfig, passthrough=_FLAGS_OF_THE_STAGE)
