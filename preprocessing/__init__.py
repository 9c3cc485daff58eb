"""Photos in, shards out: lists, plans, writes and proves data sets of TFRecord shards."""
