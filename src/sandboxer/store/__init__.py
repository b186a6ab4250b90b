"""Where records live: the contract (`base`) and the default, JSON documents (`json_store`)."""
