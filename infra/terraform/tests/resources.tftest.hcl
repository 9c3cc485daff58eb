# What is made, and what is not: `terraform test`. Nothing is asked of the cloud.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

override_resource {
  target = google_service_account.trainer
  values = {
    name   = "projects/a-project/serviceAccounts/trainer@a-project.iam.gserviceaccount.com"
    email  = "trainer@a-project.iam.gserviceaccount.com"
    member = "serviceAccount:trainer@a-project.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.builder
  values = {
    name   = "projects/a-project/serviceAccounts/builder@a-project.iam.gserviceaccount.com"
    email  = "builder@a-project.iam.gserviceaccount.com"
    member = "serviceAccount:builder@a-project.iam.gserviceaccount.com"
  }
}

variables {
  project_id      = "a-project"
  region          = "europe-west4"
  bucket_name     = "a-bucket"
  billing_account = "012345-6789AB-CDEF01"
}

run "a_plan_is_made_before_anything_is_there" {
  command = plan

  variables {
    submitters = ["user:ada@example.com"]
  }

  assert {
    condition     = length(google_project_iam_member.accounts) == 4
    error_message = "What is granted is known only when the accounts are there: one apply is not enough."
  }
}

run "bucket" {
  assert {
    condition = (
      google_storage_bucket.data.uniform_bucket_level_access &&
      google_storage_bucket.data.public_access_prevention == "enforced" &&
      !google_storage_bucket.data.force_destroy
    )
    error_message = "The bucket is open to the public, or is deleted with all that is in it."
  }

  assert {
    condition     = google_storage_bucket.data.location == "europe-west4"
    error_message = "The bucket is not where the jobs are."
  }

  assert {
    condition = jsonencode([
      for rule in google_storage_bucket.data.lifecycle_rule : [
        one(rule.action).type, one(rule.condition).age, one(rule.condition).matches_prefix
      ]
      ]) == jsonencode([
      ["Delete", 14, ["staging/", "tmp/"]],
      ["AbortIncompleteMultipartUpload", 7, null],
    ])
    error_message = "The lifecycle rules delete something else than old objects in temporary folders."
  }
}

run "nothing_is_deleted_where_nothing_is_temporary" {
  variables {
    temporary_prefixes = []
  }

  assert {
    condition = [
      for rule in google_storage_bucket.data.lifecycle_rule : one(rule.action).type
    ] == ["AbortIncompleteMultipartUpload"]
    error_message = "A rule that deletes is left, and it has no prefix."
  }
}

run "each_account_has_what_it_needs_and_no_more" {
  assert {
    condition = {
      for grant in google_project_iam_member.accounts : grant.member => grant.role...
      } == {
      "serviceAccount:trainer@a-project.iam.gserviceaccount.com" = [
        "roles/logging.logWriter",
      ]
      "serviceAccount:builder@a-project.iam.gserviceaccount.com" = [
        "roles/dataflow.developer",
        "roles/dataflow.worker",
        "roles/logging.logWriter",
      ]
    }
    error_message = "Roles on the project are others than those that are known to be needed."
  }

  assert {
    condition = toset([
      for grant in google_storage_bucket_iam_member.accounts : "${grant.bucket} ${grant.role}"
    ]) == toset(["a-bucket roles/storage.objectUser", "a-bucket roles/storage.legacyBucketReader"])
    error_message = "Roles on the bucket are others than those that are known to be needed."
  }

  assert {
    condition = (
      google_service_account_iam_member.builder_as_itself.service_account_id == google_service_account.builder.name &&
      google_service_account_iam_member.builder_as_itself.member == google_service_account.builder.member
    )
    error_message = "The builder can act as another account than itself."
  }

  assert {
    condition = (
      google_artifact_registry_repository_iam_member.builder.role == "roles/artifactregistry.reader" &&
      google_artifact_registry_repository_iam_member.builder.member == google_service_account.builder.member
    )
    error_message = "A job can push images."
  }
}

run "nobody_submits_by_default" {
  assert {
    condition = length(concat(
      values(google_project_iam_member.submitters)[*].role,
      values(google_storage_bucket_iam_member.submitters)[*].role,
      values(google_service_account_iam_member.submitters)[*].role,
      values(google_artifact_registry_repository_iam_member.submitters)[*].role,
    )) == 0
    error_message = "Somebody may submit jobs who was not named."
  }
}

run "submitters_act_as_the_two_accounts_only" {
  variables {
    submitters = ["user:ada@example.com", "group:vision@example.com"]
  }

  assert {
    condition = toset([
      for grant in google_service_account_iam_member.submitters :
      "${grant.member} as ${grant.service_account_id}"
      ]) == toset([
      for pair in setproduct(
        ["user:ada@example.com", "group:vision@example.com"],
        [google_service_account.trainer.name, google_service_account.builder.name],
      ) : "${pair[0]} as ${pair[1]}"
    ])
    error_message = "Submitters act as other accounts than trainer and builder."
  }

  assert {
    condition = !contains(
      values(google_project_iam_member.submitters)[*].role, "roles/iam.serviceAccountUser"
    )
    error_message = "Submitters may act as every account of the project."
  }
}

run "budget" {
  variables {
    budget_amount = 300
    budget_emails = ["ada@example.com"]
  }

  assert {
    condition = (
      one(google_billing_budget.month[0].budget_filter).projects == toset(["projects/123456789012"]) &&
      one(one(google_billing_budget.month[0].amount).specified_amount).units == "300"
    )
    error_message = "The budget is of another project or amount."
  }

  assert {
    condition = toset([
      for rule in google_billing_budget.month[0].threshold_rules :
      "${rule.threshold_percent} ${coalesce(rule.spend_basis, "CURRENT_SPEND")}"
      ]) == toset([
      "0.25 CURRENT_SPEND", "0.5 CURRENT_SPEND", "0.9 CURRENT_SPEND", "1 CURRENT_SPEND",
      "1 FORECASTED_SPEND",
    ])
    error_message = "Mails come at other shares of the budget."
  }

  assert {
    condition = (
      one(google_billing_budget.month[0].all_updates_rule).monitoring_notification_channels ==
      tolist([google_monitoring_notification_channel.budget["ada@example.com"].id])
    )
    error_message = "The mails do not reach who was named."
  }
}

run "no_budget_without_a_billing_account" {
  variables {
    billing_account = null
    budget_emails   = ["ada@example.com"]
  }

  assert {
    condition = (
      length(google_billing_budget.month) == 0 &&
      length(google_monitoring_notification_channel.budget) == 0 &&
      !contains(keys(google_project_service.apis), "billingbudgets.googleapis.com") &&
      output.budget == null
    )
    error_message = "Something of a budget is left."
  }
}

run "outputs" {
  assert {
    condition = {
      bucket     = output.bucket
      repository = output.repository
      trainer    = output.trainer
      builder    = output.builder
      region     = output.region
      budget     = output.budget
      } == {
      bucket     = "gs://a-bucket"
      repository = "europe-west4-docker.pkg.dev/a-project/mobilenet"
      trainer    = "trainer@a-project.iam.gserviceaccount.com"
      builder    = "builder@a-project.iam.gserviceaccount.com"
      region     = "europe-west4"
      budget     = 500
    }
    error_message = "The outputs are not what the docs put in place of BUCKET and REPOSITORY."
  }
}
