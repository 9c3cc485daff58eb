"""The sections of the report: each module turns one input into what the template shows."""
