# People (or a CI's account) who submit jobs. Without any, it is those who may do everything anyway.

locals {
  submitter_roles = [
    "roles/aiplatform.user",
    "roles/dataflow.developer",
    "roles/cloudbuild.builds.editor",
    "roles/serviceusage.serviceUsageConsumer",
  ]
  grants_to_submitters = {
    for pair in setproduct(var.submitters, local.submitter_roles) :
    join(" ", pair) => { member = pair[0], role = pair[1] }
  }
  submitters_as_accounts = {
    for pair in setproduct(var.submitters, keys(local.accounts)) :
    join(" ", pair) => { member = pair[0], account = pair[1] }
  }
  submitters_in_bucket = {
    for pair in setproduct(var.submitters, local.bucket_roles) :
    join(" ", pair) => { member = pair[0], role = pair[1] }
  }
}

resource "google_project_iam_member" "submitters" {
  for_each = local.grants_to_submitters

  project = var.project_id
  role    = each.value.role
  member  = each.value.member

  depends_on = [google_project_service.apis]
}

# On these two accounts only: on the project it would let them act as any account of it.
resource "google_service_account_iam_member" "submitters" {
  for_each = local.submitters_as_accounts

  service_account_id = local.accounts[each.value.account].name
  role               = "roles/iam.serviceAccountUser"
  member             = each.value.member
}

resource "google_storage_bucket_iam_member" "submitters" {
  for_each = local.submitters_in_bucket

  bucket = google_storage_bucket.data.name
  role   = each.value.role
  member = each.value.member
}

resource "google_artifact_registry_repository_iam_member" "submitters" {
  for_each = var.submitters

  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = each.value
}
