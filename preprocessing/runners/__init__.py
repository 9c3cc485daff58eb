"""Where the Beam job runs: on this machine, on Flink, on Dataflow; checked before any work."""

from preprocessing.runners.config import RUNNERS, RunnerConfig

__all__ = ["RUNNERS", "RunnerConfig"]
