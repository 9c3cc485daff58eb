# Values that are refused before anything is made, one a run: `terraform test`.

mock_provider "google" {}

variables {
  project_id      = "a-project"
  bucket_name     = "a-bucket"
  billing_account = null
}

run "project_id_1" {
  command = plan
  variables {
    project_id = "My Project"
  }
  expect_failures = [var.project_id]
}

run "project_id_2" {
  command = plan
  variables {
    project_id = "123456789012"
  }
  expect_failures = [var.project_id]
}

run "project_id_3" {
  command = plan
  variables {
    project_id = "short"
  }
  expect_failures = [var.project_id]
}

run "region_1" {
  command = plan
  variables {
    region = "us-central1-a"
  }
  expect_failures = [var.region]
}

run "region_2" {
  command = plan
  variables {
    region = "us"
  }
  expect_failures = [var.region]
}

run "bucket_name_1" {
  command = plan
  variables {
    bucket_name = "gs://a-bucket"
  }
  expect_failures = [var.bucket_name]
}

run "bucket_name_2" {
  command = plan
  variables {
    bucket_name = "a.bucket"
  }
  expect_failures = [var.bucket_name]
}

run "bucket_name_3" {
  command = plan
  variables {
    bucket_name = "-bucket"
  }
  expect_failures = [var.bucket_name]
}

run "bucket_name_4" {
  command = plan
  variables {
    bucket_name = "my-google-bucket"
  }
  expect_failures = [var.bucket_name]
}

run "bucket_name_5" {
  command = plan
  variables {
    bucket_name = "goog-bucket"
  }
  expect_failures = [var.bucket_name]
}

run "bucket_name_6" {
  command = plan
  variables {
    bucket_name = "ab"
  }
  expect_failures = [var.bucket_name]
}

run "temporary_prefixes_1" {
  command = plan
  variables {
    temporary_prefixes = [""]
  }
  expect_failures = [var.temporary_prefixes]
}

run "temporary_prefixes_2" {
  command = plan
  variables {
    temporary_prefixes = ["tmp"]
  }
  expect_failures = [var.temporary_prefixes]
}

run "temporary_prefixes_3" {
  command = plan
  variables {
    temporary_prefixes = ["/tmp/"]
  }
  expect_failures = [var.temporary_prefixes]
}

run "temporary_prefixes_4" {
  command = plan
  variables {
    temporary_prefixes = ["/"]
  }
  expect_failures = [var.temporary_prefixes]
}

run "temporary_days_1" {
  command = plan
  variables {
    temporary_days = 7
  }
  expect_failures = [var.temporary_days]
}

run "temporary_days_2" {
  command = plan
  variables {
    temporary_days = 8.5
  }
  expect_failures = [var.temporary_days]
}

run "soft_delete_days_1" {
  command = plan
  variables {
    soft_delete_days = 3
  }
  expect_failures = [var.soft_delete_days]
}

run "soft_delete_days_2" {
  command = plan
  variables {
    soft_delete_days = 91
  }
  expect_failures = [var.soft_delete_days]
}

run "soft_delete_days_3" {
  command = plan
  variables {
    soft_delete_days = 7.5
  }
  expect_failures = [var.soft_delete_days]
}

run "repository_id_1" {
  command = plan
  variables {
    repository_id = "Images"
  }
  expect_failures = [var.repository_id]
}

run "repository_id_2" {
  command = plan
  variables {
    repository_id = "images-"
  }
  expect_failures = [var.repository_id]
}

run "trainer_account_id_1" {
  command = plan
  variables {
    trainer_account_id = "train"
  }
  expect_failures = [var.trainer_account_id]
}

run "trainer_account_id_2" {
  command = plan
  variables {
    trainer_account_id = "trainer_1"
  }
  expect_failures = [var.trainer_account_id]
}

run "builder_account_id_1" {
  command = plan
  variables {
    builder_account_id = "build"
  }
  expect_failures = [var.builder_account_id]
}

run "builder_account_id_2" {
  command = plan
  variables {
    builder_account_id = "trainer"
  }
  expect_failures = [var.builder_account_id]
}

run "submitters_1" {
  command = plan
  variables {
    submitters = ["allUsers"]
  }
  expect_failures = [var.submitters]
}

run "submitters_2" {
  command = plan
  variables {
    submitters = ["domain:example.com"]
  }
  expect_failures = [var.submitters]
}

run "submitters_3" {
  command = plan
  variables {
    submitters = ["ada@example.com"]
  }
  expect_failures = [var.submitters]
}

run "billing_account_1" {
  command = plan
  variables {
    billing_account = "012345-6789ab-cdef01"
  }
  expect_failures = [var.billing_account]
}

run "billing_account_2" {
  command = plan
  variables {
    billing_account = "billingAccounts/012345-6789AB-CDEF01"
  }
  expect_failures = [var.billing_account]
}

run "budget_amount_1" {
  command = plan
  variables {
    budget_amount = 0
  }
  expect_failures = [var.budget_amount]
}

run "budget_amount_2" {
  command = plan
  variables {
    budget_amount = 99.5
  }
  expect_failures = [var.budget_amount]
}

run "budget_thresholds_1" {
  command = plan
  variables {
    budget_thresholds = []
  }
  expect_failures = [var.budget_thresholds]
}

run "budget_thresholds_2" {
  command = plan
  variables {
    budget_thresholds = [0]
  }
  expect_failures = [var.budget_thresholds]
}

run "budget_thresholds_3" {
  command = plan
  variables {
    budget_thresholds = [50]
  }
  expect_failures = [var.budget_thresholds]
}

run "budget_emails_1" {
  command = plan
  variables {
    budget_emails = ["ada"]
  }
  expect_failures = [var.budget_emails]
}

run "budget_emails_2" {
  command = plan
  variables {
    budget_emails = ["a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org", "f@x.org"]
  }
  expect_failures = [var.budget_emails]
}

run "labels_1" {
  command = plan
  variables {
    labels = { Purpose = "x" }
  }
  expect_failures = [var.labels]
}

run "labels_2" {
  command = plan
  variables {
    labels = { purpose = "X" }
  }
  expect_failures = [var.labels]
}
