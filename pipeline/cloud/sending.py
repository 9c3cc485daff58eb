"""Hands a job to Vertex AI, through gcloud or through Google's client for Python."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from common.bucket_client import LOGIN
from common.errors import UserError, first_line
from pipeline.cloud.specs import Job

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import JobServiceClient


def send_by_gcloud(words: Sequence[str]) -> None:
    """Runs the command that submits, which prints the job's name and how to follow its log.

    Raises:
        UserError: there is no gcloud, or it did not submit.
    """
    try:
        code = subprocess.run(words, check=False).returncode
    except FileNotFoundError:
        raise UserError(
            "gcloud is not installed: see https://cloud.google.com/sdk/docs/install, or use"
            " --via=client"
        ) from None
    if code:
        raise UserError(f"gcloud ended with exit code {code} and did not submit the job")


def make_client(region: str) -> JobServiceClient:
    """Vertex AI's client of a region.

    Raises:
        UserError: it is not installed, or there are no credentials.
    """
    try:
        from google.cloud.aiplatform_v1 import JobServiceClient
    except ImportError:
        raise UserError(
            "--via=client needs google-cloud-aiplatform: install the extra 'vertex', or use"
            " --via=gcloud"
        ) from None
    from google.auth.exceptions import GoogleAuthError

    address = f"{region}-aiplatform.googleapis.com"  # a job is known in its region only
    try:
        return JobServiceClient(client_options={"api_endpoint": address})
    except GoogleAuthError:
        raise UserError(f"Vertex AI needs credentials: {LOGIN}") from None


def send_by_client(client: JobServiceClient, project: str, job: Job, spec: dict[str, Any]) -> str:
    """Submits a job.

    Returns:
        Its name in Vertex AI: projects/.../customJobs/NUMBER.

    Raises:
        UserError: it was refused, or nobody answers.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.aiplatform_v1 import CustomJob
    from google.protobuf import json_format

    wanted = {"displayName": job.name, "jobSpec": spec, "labels": dict(job.labels)}
    custom_job = CustomJob()
    json_format.ParseDict(wanted, CustomJob.pb(custom_job))
    parent = f"projects/{project}/locations/{job.region}"
    try:
        return client.create_custom_job(parent=parent, custom_job=custom_job).name
    except (GoogleAPIError, GoogleAuthError) as error:
        raise UserError(f"Vertex AI did not take the job: {first_line(error)}") from None
