"""Which runner the Beam job goes to, and with which options; checked before any work.

`DirectRunner` is this machine: Beam's `FnApiRunner`, in this process or in worker processes. What
Beam itself understands by that name changes with the machine: a binary that it could fetch, and
that knows nothing of worker processes. Options of Beam's own stand behind a bare `--` on the
command line and are handed on as they are.
"""

from __future__ import annotations

import dataclasses

from common.errors import UsageError
from common.files import is_remote
from preprocessing.runners.names import DATAFLOW, DIRECT, FLINK, PORTABLE, PRISM, RUNNERS

_INSTEAD_OF_NUM_WORKERS = {
    FLINK: "say -- --parallelism={} instead",
    PORTABLE: "say -- --parallelism={} instead, if its job server is Flink's",
    DATAFLOW: "say -- --max_num_workers={} instead (and --num_workers behind the -- for the start)",
    PRISM: "leave it out",
}


@dataclasses.dataclass(frozen=True)
class RunnerConfig:
    """What runs the job.

    Attributes:
        runner: one of `RUNNERS`.
        num_workers: processes on this machine, for `DirectRunner`; 1 is this process itself.
        beam_flags: options of Beam's own, `--name=value`.
    """

    runner: str = DIRECT
    num_workers: int = 1
    beam_flags: tuple[str, ...] = ()

    def __post_init__(self):
        if self.runner not in RUNNERS:
            raise UsageError(f"--runner={self.runner}: it must be one of {', '.join(RUNNERS)}")
        if self.num_workers < 1:
            raise UsageError(f"--num_workers={self.num_workers}: it must be at least 1")
        if self.num_workers > 1 and self.runner != DIRECT:
            cure = _INSTEAD_OF_NUM_WORKERS[self.runner].format(self.num_workers)
            raise UsageError(f"--num_workers={self.num_workers} is for {DIRECT}: {cure}")

    def check(self, output_dir: str, source: str = "") -> None:
        """Checks, before any work is spent, that the job can be run with these options.

        Raises:
            UsageError: an option is unknown, missing or wrong, or a path is out of reach.
        """
        if self.runner == DATAFLOW:
            require_reachable(output_dir, "output_dir")
            if source and not source.startswith("tfds:"):
                require_reachable(source, "source")
        if self.beam_flags or self.runner != DIRECT:
            # Beam takes seconds to import, which the plain case need not wait for here.
            from preprocessing.runners.options import check_options

            check_options(self.runner, self.beam_flags)


def require_reachable(path: str, flag: str) -> None:
    """Checks that workers in the cloud see `path`.

    Raises:
        UsageError: they do not.
    """
    if not is_remote(path):
        raise UsageError(
            f"--{flag}={path} is on this machine, where {DATAFLOW}'s workers cannot see it: it must"
            " be gs://BUCKET/..."
        )
