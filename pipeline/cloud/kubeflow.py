"""The stages as a pipeline of Kubeflow, which Vertex Pipelines run as well.

The run's directory is the pipeline's parameter, in a bucket: stages hand over by paths below it,
and no artefact of Kubeflow's own is made.
"""

# No annotations from the future: kfp takes a parameter's type from the function itself.
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from common.errors import UsageError
from pipeline.cloud.containers import ENTRY_POINT, ENVIRONMENT, ContainerFlags
from pipeline.cloud.stage_graph import Task

if TYPE_CHECKING:
    from kfp import dsl

_ATTEMPTS = 3  # beyond the first: what was done is kept, and the same command goes on


def compile_pipeline(
    name: str, description: str, tasks: Sequence[Task], work_dir: str, given: ContainerFlags
) -> str:
    """The pipeline as YAML.

    Raises:
        UsageError: kfp is not installed.
    """
    try:
        from kfp import compiler, dsl
    except ImportError:
        raise UsageError(
            "--format=kubeflow needs Kubeflow's compiler: pip install -e '.[kubeflow]'"
        ) from None

    components = {task.name: _component(task, given.image) for task in tasks}

    @dsl.pipeline(name=name, description=description)
    def line(work_dir: str = work_dir):
        made: dict[str, dsl.PipelineTask] = {}
        for task in tasks:
            step = components[task.name](work_dir=work_dir)
            step.after(*(made[before] for before in task.needs))
            _equip(step, task, given)
            made[task.name] = step

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "pipeline.yaml")
        compiler.Compiler().compile(line, path)
        with open(path, encoding="utf-8") as file:
            return file.read()


def _component(task: Task, image: str) -> "Callable[..., dsl.PipelineTask]":
    from kfp import dsl

    def container(work_dir: str):
        # Here the parameter is a placeholder, which may stand in the middle of a word.
        words = task.words_in(str(work_dir))
        return dsl.ContainerSpec(image=image, command=list(ENTRY_POINT), args=words)

    container.__name__ = task.name.replace("-", "_")
    return dsl.container_component(container)


def _equip(step: "dsl.PipelineTask", task: Task, given: ContainerFlags) -> None:
    asked = given.resources(task)
    # Kubeflow would skip a stage whose words are the same although its files have changed or are
    # gone; the stages themselves look at the files.
    step.set_caching_options(False)
    step.set_retry(_ATTEMPTS)
    step.set_cpu_limit(str(asked.cpus)).set_memory_limit(asked.memory)
    for name, value in ENVIRONMENT.items():
        step.set_env_variable(name, value)
    if asked.gpus:
        step.set_accelerator_type(given.gpu_type).set_accelerator_limit(asked.gpus)
