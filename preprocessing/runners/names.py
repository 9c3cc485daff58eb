"""The runners that the Beam job is written for."""

DIRECT = "DirectRunner"
FLINK = "FlinkRunner"
DATAFLOW = "DataflowRunner"
PORTABLE = "PortableRunner"
PRISM = "PrismRunner"
RUNNERS = (DIRECT, FLINK, DATAFLOW, PORTABLE, PRISM)
