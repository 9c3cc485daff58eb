"""What `training.doctor` measures, what it checks, and what it concludes."""
