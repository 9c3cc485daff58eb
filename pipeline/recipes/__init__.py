"""The recipes behind `pipeline.experiments`, by where they come from."""
