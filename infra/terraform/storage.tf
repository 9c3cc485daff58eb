resource "google_storage_bucket" "data" {
  # checkov:skip=CKV_GCP_62:who read what is in Cloud Audit Logs, which a project switches on for all of its buckets
  # checkov:skip=CKV_GCP_78:checkpoints are replaced every few minutes, and each version would be paid for; soft delete brings back what was deleted by mistake
  name     = var.bucket_name
  location = var.region
  labels   = var.labels

  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  # `terraform destroy` stops at a bucket that has something in it.
  force_destroy = false

  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 24 * 60 * 60
  }

  dynamic "lifecycle_rule" {
    # A rule without a prefix would delete everything.
    for_each = length(var.temporary_prefixes) > 0 ? [sort(var.temporary_prefixes)] : []

    content {
      action {
        type = "Delete"
      }
      condition {
        age            = var.temporary_days
        matches_prefix = lifecycle_rule.value
      }
    }
  }

  # Parts of uploads that broke off are on no list of objects, and on the bill.
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }

  depends_on = [google_project_service.apis]
}
