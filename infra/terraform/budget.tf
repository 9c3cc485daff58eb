# It warns; it stops nothing. What a running job costs arrives hours later.

data "google_project" "this" {
  count = var.billing_account == null ? 0 : 1

  project_id = var.project_id

  depends_on = [google_project_service.apis]
}

resource "google_monitoring_notification_channel" "budget" {
  for_each = var.billing_account == null ? [] : var.budget_emails

  display_name = "Budget: ${each.value}"
  type         = "email"
  labels       = { email_address = each.value }

  depends_on = [google_project_service.apis]
}

resource "google_billing_budget" "month" {
  count = var.billing_account == null ? 0 : 1

  billing_account = var.billing_account
  display_name    = "${var.project_id}: a month"

  budget_filter {
    projects        = ["projects/${data.google_project.this[0].number}"]
    calendar_period = "MONTH"
  }

  amount {
    specified_amount {
      units = tostring(var.budget_amount)
    }
  }

  dynamic "threshold_rules" {
    for_each = var.budget_thresholds

    content {
      threshold_percent = threshold_rules.value
    }
  }

  # Says days before that the month will not be enough.
  threshold_rules {
    threshold_percent = 1
    spend_basis       = "FORECASTED_SPEND"
  }

  all_updates_rule {
    monitoring_notification_channels = [for channel in google_monitoring_notification_channel.budget : channel.id]
    disable_default_iam_recipients   = false
  }

  depends_on = [google_project_service.apis]
}
