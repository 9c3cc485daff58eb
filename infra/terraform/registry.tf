resource "google_artifact_registry_repository" "images" {
  # checkov:skip=CKV_GCP_84:Google's own keys encrypt the images; there is nothing secret in them
  repository_id = var.repository_id
  description   = "Images for training and for building data sets."
  location      = var.region
  format        = "DOCKER"
  labels        = var.labels

  docker_config {
    # A tag in the spec of a job of last year still means the same image.
    immutable_tags = true
  }

  cleanup_policies {
    id     = "untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "30d"
    }
  }

  depends_on = [google_project_service.apis]
}
