"""Copy files into and out of sandboxes, without following what somebody else can change."""
