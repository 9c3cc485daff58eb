terraform {
  required_version = ">= 1.7, < 2"

  required_providers {
    google = {
      source = "hashicorp/google"
      # The last minor version whose schema these files are validated against.
      version = "~> 6.50"
    }
  }
}

provider "google" {
  project = var.project_id
  region  = var.region

  # A budget belongs to no project; its API wants to be told whose quota the calls count against.
  billing_project       = var.project_id
  user_project_override = true
}
