"""What `pipeline.evaluate` is made of: opening models, statistics, diagnosis, published figures."""
