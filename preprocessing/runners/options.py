"""Beam's own options for a runner, and what each runner cannot do without.

Beam drops options that it does not know with a warning, and finds others missing after minutes of
work elsewhere; here both end the command before it starts. This module imports Beam.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import logging
import os
import re
import shutil
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.files import is_remote
from preprocessing.runners.names import DATAFLOW, DIRECT, FLINK, PORTABLE, PRISM
from preprocessing.runners.quiet_import import import_beam

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_SECONDS_TO_CONNECT = 5.0

# What Flink's job server knows beyond Beam's Python part, which asks it only once it runs.
_FLINK_OPTIONS = set(
    re.findall(
        r"\w+",
        """
    allow_non_restored_state attached_mode auto_balance_write_files_sharding_enabled
    auto_watermark_interval checkpoint_timeout_millis checkpointing_interval checkpointing_mode
    disable_metrics enable_stable_input_drain execution_mode_for_batch execution_retry_delay
    externalized_checkpoints_enabled fail_on_checkpointing_errors faster_copy
    file_input_split_max_size_m_b finish_bundle_before_checkpointing flink_conf_dir
    force_unaligned_checkpoint_enabled job_check_interval_in_secs latency_tracking_interval
    max_bundle_size max_bundle_time_mills min_pause_between_checkpoints num_concurrent_checkpoints
    number_of_execution_retries object_reuse operator_chaining re_iterable_group_by_key_result
    report_checkpoint_duration retain_externalized_checkpoints_on_cancellation savepoint_path
    shutdown_sources_after_idle_ms state_backend state_backend_factory state_backend_storage_path
    unaligned_checkpoint_enabled
    """,
    )
)


def make_options(runner: str, beam_flags: Sequence[str], **overrides: Any) -> PipelineOptions:
    """The options of a job, `overrides` before what the user gave."""
    import_beam(whole=runner != DIRECT)
    from apache_beam.options.pipeline_options import PipelineOptions

    flags = list(beam_flags)
    if runner != DIRECT:
        # Nothing of the command's main module is needed by workers, and on Dataflow it would be
        # pickled unless one says so.
        flags = [f"--runner={runner}", "--no_save_main_session", *flags]
    return PipelineOptions(flags=flags, **overrides)


def check_options(runner: str, beam_flags: Sequence[str]) -> None:
    """Checks the options behind the `--`.

    Raises:
        UsageError: one is unknown, missing or wrong.
    """
    for word in beam_flags:
        if not word.startswith("--") or word == "--":
            raise UsageError(f"{word!r} behind the --: options of Beam have the form --name=value")
    values = _parse(runner, beam_flags)
    if runner == DIRECT:
        for name in ("direct_num_workers", "direct_running_mode"):
            if _is_given(beam_flags, name):
                raise UsageError(f"--{name} behind the --: say --num_workers=N before it instead")
    for name in ("template_location", "dry_run", "output_executable_path"):
        if values.get(name):
            raise UsageError(
                f"--{name} behind the -- has the job described and not run, and a build needs its"
                " shards: leave it out"
            )
    needs = {
        FLINK: _check_flink,
        DATAFLOW: _check_dataflow,
        PORTABLE: _check_portable,
        PRISM: _check_prism,
    }
    if runner in needs:
        needs[runner](values)


def _parse(runner: str, beam_flags: Sequence[str]) -> dict[str, Any]:
    """All of Beam's options by name, defaults included."""
    complaint = io.StringIO()
    level = logging.root.manager.disable
    try:
        with contextlib.redirect_stderr(complaint):
            options = make_options(runner, beam_flags)
            logging.disable(logging.WARNING)
            known = options.get_all_options()
            everything = options.get_all_options(retain_unknown_options=True)
    except SystemExit:
        reason = complaint.getvalue().strip().rpartition("error: ")[2]
        raise UsageError(f"options behind the --: {reason}") from None
    finally:
        logging.disable(level)
    if _is_given(beam_flags, "runner"):
        raise UsageError("--runner behind the --: say it before it")
    if runner == PORTABLE:
        return everything  # what is not known here may be the job server's own
    possible = known.keys() | (_FLINK_OPTIONS if runner == FLINK else set())
    for name in sorted(everything.keys() - possible):
        near = difflib.get_close_matches(name, possible, 1)
        hint = f"; is it --{near[0]}?" if near else ""
        raise UsageError(f"--{name} behind the -- is no option of Beam's{hint}")
    return everything


def _is_given(beam_flags: Sequence[str], name: str) -> bool:
    return any(word[2:].partition("=")[0] == name for word in beam_flags)


def _check_dataflow(values: dict[str, Any]) -> None:
    missing = [name for name in ("project", "region", "temp_location") if not values[name]]
    if missing:
        raise UsageError(
            f"{DATAFLOW} needs --{', --'.join(missing)}:"
            " ... -- --project=PROJECT --region=REGION --temp_location=gs://BUCKET/tmp"
        )
    for name in ("temp_location", "staging_location"):
        if values[name] and not is_remote(values[name]):
            raise UsageError(f"--{name}={values[name]}: it must be gs://BUCKET/...")
    if not any(values[name] for name in ("setup_file", "sdk_container_image", "extra_packages")):
        raise UsageError(
            f"{DATAFLOW}'s workers need this package: say -- --setup_file=./setup.py, or"
            " --sdk_container_image=IMAGE of an image that has it"
        )
    if values["setup_file"] and not os.path.isfile(values["setup_file"]):
        raise UsageError(f"--setup_file={values['setup_file']} does not exist")
    try:
        importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
    except ImportError as error:
        raise UsageError(
            f"{DATAFLOW} needs Beam's Google Cloud parts ({error}): install"
            " 'apache-beam[gcp]', which this package's extra 'gcp' does"
        ) from None


def _check_flink(values: dict[str, Any]) -> None:
    if values["job_endpoint"]:
        _check_endpoint(values["job_endpoint"])
        return
    jar = values["flink_job_server_jar"]
    if jar and "://" not in jar and not os.path.isfile(jar):
        raise UsageError(
            f"--flink_job_server_jar={jar} does not exist: infra/flink/fetch_job_server.py gets one"
        )
    launcher = values["job_server_java_launcher"]
    if not values["flink_submit_uber_jar"] and not shutil.which(launcher):
        raise UsageError(
            f"{FLINK} starts a job server, for which it needs {launcher!r}, and there is"
            " none: install Java 11 or 17, or name a running one by -- --job_endpoint=HOST:PORT"
        )


def _check_portable(values: dict[str, Any]) -> None:
    if not values["job_endpoint"]:
        raise UsageError(f"{PORTABLE} needs a running job server: ... -- --job_endpoint=HOST:PORT")
    _check_endpoint(values["job_endpoint"])


def _check_prism(values: dict[str, Any]) -> None:
    place = values["prism_location"]
    if place and "://" not in place and not os.path.isfile(place):
        raise UsageError(f"--prism_location={place} does not exist")


def _check_endpoint(endpoint: str) -> None:
    """Beam itself would wait five minutes for a job server that is not there."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_CONNECT).close()
    except ValueError:
        raise UsageError(f"--job_endpoint={endpoint}: it must be HOST:PORT") from None
    except OSError as error:
        raise UsageError(f"--job_endpoint={endpoint}: nothing answers there ({error})") from None
