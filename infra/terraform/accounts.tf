# Two accounts, and what each may do: no more than its jobs need. Neither can change who may do what,
# push an image, make or delete a bucket, or see another bucket of the project.

resource "google_service_account" "trainer" {
  account_id   = var.trainer_account_id
  display_name = "Trains, evaluates, exports and publishes"
  description  = "Jobs on Vertex AI run as it."

  depends_on = [google_project_service.apis]
}

resource "google_service_account" "builder" {
  account_id   = var.builder_account_id
  display_name = "Builds data sets"
  description  = "Starts Dataflow's job, and its workers run as it."

  depends_on = [google_project_service.apis]
}

locals {
  accounts = {
    trainer = google_service_account.trainer
    builder = google_service_account.builder
  }

  project_roles = {
    trainer = [
      "roles/logging.logWriter",
    ]
    builder = [
      "roles/dataflow.developer", # to start the job, and to cancel it
      "roles/dataflow.worker",    # what its workers need
      "roles/logging.logWriter",
    ]
  }

  bucket_roles = [
    "roles/storage.objectUser",         # to read, write and delete objects, not to share them
    "roles/storage.legacyBucketReader", # to ask where the bucket is, and to list it
  ]

  # Keys are known before anything is made, so that one `terraform apply` is enough.
  grants_in_project = merge([
    for account, roles in local.project_roles : {
      for role in roles : "${account} ${role}" => { account = account, role = role }
    }
  ]...)
  grants_in_bucket = {
    for pair in setproduct(keys(local.accounts), local.bucket_roles) :
    join(" ", pair) => { account = pair[0], role = pair[1] }
  }
}

resource "google_project_iam_member" "accounts" {
  for_each = local.grants_in_project

  project = var.project_id
  role    = each.value.role
  member  = local.accounts[each.value.account].member
}

resource "google_storage_bucket_iam_member" "accounts" {
  for_each = local.grants_in_bucket

  bucket = google_storage_bucket.data.name
  role   = each.value.role
  member = local.accounts[each.value.account].member
}

# Dataflow's workers fetch their image as the builder. Vertex AI fetches its own as a service agent
# of Google's, never as the account of the job, so the trainer needs nothing here.
resource "google_artifact_registry_repository_iam_member" "builder" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.builder.member
}

# The job that builds runs as the builder and hands Dataflow workers that run as the builder.
resource "google_service_account_iam_member" "builder_as_itself" {
  service_account_id = google_service_account.builder.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.builder.member
}
