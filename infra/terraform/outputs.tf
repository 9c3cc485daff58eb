output "bucket" {
  description = "Address of the bucket: what the docs call gs://BUCKET."
  value       = "gs://${google_storage_bucket.data.name}"
}

output "repository" {
  description = "What the names of images begin with: REGION-docker.pkg.dev/PROJECT/REPOSITORY."
  value       = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}

output "trainer" {
  description = "Address of the service account for jobs on Vertex AI."
  value       = google_service_account.trainer.email
}

output "builder" {
  description = "Address of the service account for the build on Dataflow."
  value       = google_service_account.builder.email
}

output "region" {
  description = "Region of all of it, and so of the jobs."
  value       = var.region
}

output "budget" {
  description = "What a month may cost before a mail is sent; null where there is no budget."
  value       = var.billing_account == null ? null : var.budget_amount
}
