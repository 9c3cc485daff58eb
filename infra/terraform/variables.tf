variable "project_id" {
  description = "Id of the project that everything is made in. It has to be there already."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id is an id like my-project-1: 6 to 30 lower-case letters, digits and hyphens, a letter first. It is neither the project's name nor its number."
  }
}

variable "region" {
  description = "Region of the bucket, the images and the jobs. Reading from another one costs money and time."
  type        = string
  default     = "us-central1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is a region like us-central1, neither a zone (us-central1-a) nor a multi-region (us)."
  }
}

variable "bucket_name" {
  description = "Name of the bucket for data sets, runs and published models. It is unique in the whole world."
  type        = string
  nullable    = false

  # Names with dots belong to verified domains and are left out.
  validation {
    condition = (
      can(regex("^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$", var.bucket_name)) &&
      !startswith(var.bucket_name, "goog") && !strcontains(var.bucket_name, "google")
    )
    error_message = "bucket_name has 3 to 63 lower-case letters, digits, - and _, a letter or digit at both ends, and no 'google' in it; gs:// is not part of it."
  }
}

variable "temporary_prefixes" {
  description = "Folders of the bucket for what jobs need only while they run: Beam's and Dataflow's files, packages, sources of images."
  type        = set(string)
  default     = ["tmp/", "staging/"]
  nullable    = false

  # An empty prefix would be that of every object.
  validation {
    condition     = alltrue([for prefix in var.temporary_prefixes : can(regex("^[^/].*/$", prefix))])
    error_message = "Each of temporary_prefixes ends with a slash and does not begin with one, like tmp/."
  }
}

variable "temporary_days" {
  description = "Days after which an object in one of the temporary folders is deleted; longer than any job runs."
  type        = number
  default     = 14
  nullable    = false

  validation {
    condition     = var.temporary_days >= 8 && floor(var.temporary_days) == var.temporary_days
    error_message = "temporary_days is a whole number of at least 8: a job may run for 7 days on Vertex AI."
  }
}

variable "soft_delete_days" {
  description = "Days in which a deleted object can be brought back, and is paid for; 0 switches it off."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition = (
      (var.soft_delete_days == 0 || (var.soft_delete_days >= 7 && var.soft_delete_days <= 90)) &&
      floor(var.soft_delete_days) == var.soft_delete_days
    )
    error_message = "soft_delete_days is 0, or a whole number from 7 to 90: Cloud Storage allows no other."
  }
}

variable "repository_id" {
  description = "Name of the Artifact Registry repository for container images."
  type        = string
  default     = "mobilenet"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", var.repository_id))
    error_message = "repository_id has at most 63 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "trainer_account_id" {
  description = "Name of the service account that training, evaluation and export run as."
  type        = string
  default     = "trainer"
  nullable    = false

  # Google asks for 6 to 30 characters.
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.trainer_account_id))
    error_message = "trainer_account_id has 6 to 30 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "builder_account_id" {
  description = "Name of the service account that builds data sets: it starts Dataflow's job, and its workers run as it."
  type        = string
  default     = "builder"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.builder_account_id))
    error_message = "builder_account_id has 6 to 30 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }

  validation {
    condition     = var.builder_account_id != var.trainer_account_id
    error_message = "builder_account_id is that of the trainer: they are two accounts, since they may do different things."
  }
}

variable "submitters" {
  description = "Who may submit jobs as the two accounts and push images, like user:ada@example.com or group:vision@example.com."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for who in var.submitters : can(regex("^(user|group|serviceAccount):[^@ ]+@[^@ ]+$", who))])
    error_message = "Each of submitters is user:, group: or serviceAccount: and an address. Not everybody (allUsers, domains) may spend your money."
  }
}

# No default: whoever does without an alert has to say so.
variable "billing_account" {
  description = "Billing account that pays for the project, like 012345-6789AB-CDEF01; null makes no budget, and then nobody is warned."
  type        = string

  validation {
    condition     = var.billing_account == null || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "billing_account is three groups of six hexadecimal digits, like 012345-6789AB-CDEF01: `gcloud billing accounts list` prints it. null makes no budget."
  }
}

variable "budget_amount" {
  description = "What a month may cost, in whole units of the billing account's currency."
  type        = number
  default     = 500
  nullable    = false

  validation {
    condition     = var.budget_amount >= 1 && floor(var.budget_amount) == var.budget_amount
    error_message = "budget_amount is a whole number of at least 1."
  }
}

variable "budget_thresholds" {
  description = "Shares of the budget at which a mail is sent, 1 being all of it."
  type        = set(number)
  default     = [0.25, 0.5, 0.9, 1]
  nullable    = false

  validation {
    condition     = length(var.budget_thresholds) > 0 && alltrue([for share in var.budget_thresholds : share > 0 && share <= 10])
    error_message = "budget_thresholds are shares above 0, like 0.5 for half of the budget; at least one."
  }
}

variable "budget_emails" {
  description = "Who gets the mails beside the administrators of the billing account; five at most."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.budget_emails) <= 5 && alltrue([for address in var.budget_emails : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "budget_emails are five mail addresses at most."
  }
}

variable "labels" {
  description = "Labels of the bucket and the repository, by which a bill can be split."
  type        = map(string)
  default     = { purpose = "mobilenet-pipeline" }
  nullable    = false

  validation {
    condition = alltrue([
      for key, value in var.labels :
      can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))
    ])
    error_message = "Keys and values of labels have at most 63 lower-case letters, digits, - and _; a key begins with a letter."
  }
}
