"""What every stage leans on: errors, files, command lines and progress."""
