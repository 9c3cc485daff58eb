"""Jobs in the cloud as data: on which machines, by which specification, at what cost."""
