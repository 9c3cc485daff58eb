"""What a cluster does with the Jobs, as far as a test needs it: names, variables, exit codes."""

import dataclasses
import pathlib
import re
import shlex

import yaml

from common import command
from pipeline.manifests import FLAGS, render

ROOT = pathlib.Path(__file__).parents[2]
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def flags_of(*words: str) -> list:
    """The four groups of flags of `pipeline.manifests`."""
    return command.parse(["", "--image=IMAGE", *words], *FLAGS)


def objects_of(*words: str) -> dict[str, list[dict]]:
    """The objects that a command line of Kubernetes' describes, by file, as they are read again."""
    texts = render(*flags_of("--format=kubernetes", "--output=OUT", *words))
    return {name: list(yaml.safe_load_all(text)) for name, text in texts.items()}


def command_in(text: str) -> list[str]:
    """The flags of the command that a file names as the one that wrote it."""
    line, *following = text.splitlines()[1:]
    while line.endswith("\\"):
        line = line.removesuffix("\\") + following.pop(0).removeprefix("#")
    words = shlex.split(line.removeprefix("#"))
    assert words[:3] == ["python", "-m", "pipeline.manifests"]
    return words[3:]


def jobs_of(files: dict[str, list[dict]]) -> list[dict]:
    """All Jobs, in the order of their files."""
    kinds = [found for _, objects in sorted(files.items()) for found in objects]
    return [found for found in kinds if found["kind"] == "Job"]


def pod_of(job: dict) -> dict:
    return job["spec"]["template"]["spec"]


def container_of(job: dict) -> dict:
    (container,) = pod_of(job)["containers"]
    return container


@dataclasses.dataclass(frozen=True)
class Process:
    """What a kubelet starts: a host name within the cluster, variables and words."""

    host: str
    variables: dict[str, str]
    words: list[str]


def processes_of(job: dict) -> list[Process]:
    """The processes of a Job, one a completion, with all references to variables replaced."""
    spec, container = job["spec"], container_of(job)
    indexed = spec.get("completionMode") == "Indexed"
    count = spec.get("completions", 1)
    assert indexed or count == 1
    assert spec.get("parallelism", 1) == count
    return [
        Process(
            host=f"{job['metadata']['name']}-{index}.{pod_of(job).get('subdomain', '')}",
            variables=(variables := _variables(container.get("env", []), index)),
            words=[_expand(w, variables) for w in (*container["command"], *container["args"])],
        )
        for index in range(count)
    ]


def _variables(entries: list[dict], index: int) -> dict[str, str]:
    """Each may refer to those before it."""
    annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
    found: dict[str, str] = {}
    for entry in entries:
        if "value" in entry:
            value = _expand(entry["value"], found)
        else:
            path = entry["valueFrom"]["fieldRef"]["fieldPath"]
            (name,) = re.fullmatch(r"metadata\.annotations\['(.*)'\]", path).groups()
            value = annotations[name]
        found[entry["name"]] = value
    return found


def _expand(text: str, variables: dict[str, str]) -> str:
    """`$(NAME)` is the variable, or stays where there is none; `$$` is one `$`."""

    def value(found: re.Match) -> str:
        if found.group() == "$$":
            return "$"
        return variables.get(found.group(1), found.group())

    return _REFERENCE.sub(value, text)


def verdict_on(job: dict, exit_code: int, disrupted: bool = False) -> str:
    """What becomes of a Job of which a pod has failed: the action of the first rule that fits."""
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if codes := rule.get("onExitCodes"):
            assert codes["operator"] == "In"
            fits = codes["containerName"] == container_of(job)["name"]
            fits = fits and exit_code in codes["values"]
        else:
            (condition,) = rule["onPodConditions"]
            fits = disrupted and condition == {"type": "DisruptionTarget", "status": "True"}
        if fits:
            return rule["action"]
    return "Count"
